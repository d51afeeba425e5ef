"""Values over several machines: exact where theory gives them, and intervals that hold the truth at least as often as they say."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from coldprefix.analysis import statistics
from coldprefix.analysis.machines import like_these, machine_of, over_machines

A, B, C = ("a" * 16, "b" * 16, "c" * 16)


def trials(values: dict[str, list[float]], job: str = "job") -> pl.DataFrame:
    """Three trials for each process of each machine."""
    rows = [
        {"engine_process": f"{machine}:{i}-1", "job": job, "process": i, "ttft_ms": value}
        for machine, own in values.items()
        for i, value in enumerate(own)
        for _ in range(3)
    ]
    return pl.DataFrame(rows)


def test_with_one_machine_nothing_changes() -> None:
    named = statistics.estimate(trials({A: [10.0, 11.0, 13.0]}), "ttft_ms")
    unnamed = statistics.student([10.0, 11.0, 13.0], 9, "log")
    assert named == unnamed and named.machines == 1 and named.df == 2 and named.like_low is None
    over = over_machines(np.log([10.0, 11.0, 13.0]), [A] * 3, 0.95)
    assert over.half is not None and unnamed.high == pytest.approx(np.exp(over.mean + over.half)), "the block's formula is Student's there"


def test_each_machine_has_the_same_weight_however_many_processes_it_ran() -> None:
    found = statistics.estimate(trials({A: [10.0, 10.0, 10.0], B: [40.0, 40.0]}), "ttft_ms")
    assert found.value == pytest.approx(20.0) and (found.machines, found.processes, found.n) == (2, 5, 15)
    assert (found.low, found.high) == pytest.approx((20.0, 20.0)), "what machines differ in is no noise on these machines"
    assert found.like_low is None, "two machines say nothing about others"


def test_two_machines_are_two_although_all_else_is_equal() -> None:
    """As one, their processes would be six of one kind."""
    values = [10.0, 10.5, 11.0]
    two, one = (statistics.estimate(trials(v), "ttft_ms") for v in ({A: values, B: values}, {A: values + values}))
    assert two.df == 2 and one.df == 5 and two.high is not None and one.high is not None and two.high > one.high


def test_a_machine_with_one_process_leaves_no_interval() -> None:
    found = statistics.estimate(trials({A: [10.0, 11.0, 12.0], B: [20.0]}), "ttft_ms")
    assert found.value is not None and (found.low, found.high, found.df) == (None, None, None)


def test_the_interval_on_a_machine_like_these_is_student_s_over_the_machines_means() -> None:
    values = {A: [10.0, 10.0], B: [11.0, 11.0], C: [13.0, 13.0]}
    found = statistics.estimate(trials(values), "ttft_ms")
    logs = np.log([10.0, 11.0, 13.0])
    low, high = stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs))
    assert (found.like_low, found.like_high) == pytest.approx((np.exp(low), np.exp(high)))


def test_partners_are_compared_on_their_own_machine() -> None:
    hit, miss = trials({A: [10.0] * 3, B: [100.0] * 3}), trials({A: [20.0] * 3, B: [400.0] * 3})
    found = statistics.ratio(miss, hit)
    assert found.value == pytest.approx(np.sqrt(2 * 4)) and found.machines == 2
    assert statistics.ratio(trials({B: [400.0] * 3}), trials({A: [10.0] * 3})).value is None, "no process measured both"


def test_jobs_of_different_machines_are_not_compared() -> None:
    one = trials({A: [20.0, 21.0, 22.0]}, "one")
    assert statistics.apart(one, trials({B: [10.0, 10.5, 11.0]}, "other"), "ttft_ms").value is None
    both = trials({A: [10.0, 10.5, 11.0], B: [70.0, 70.0, 70.0]}, "other")
    found = statistics.apart(one, both, "ttft_ms")
    assert found.value == pytest.approx(2.0, rel=0.01) and found.machines == 1, "only where both were measured"
    two = statistics.apart(trials({A: [20.0, 21.0, 22.0], B: [35.0, 36.0, 37.0]}), both, "ttft_ms")
    assert two.value == pytest.approx(1.0, rel=0.03) and two.machines == 2 and two.low is not None and two.low < 1


def test_what_names_no_machine_is_of_one() -> None:
    assert machine_of("phase3a/A1_B1/hit:0") == machine_of("17-33") == "" and machine_of(f"{A}:17-33") == A


@pytest.mark.parametrize(
    ("processes", "spreads"),
    [((3, 3), (1, 1)), ((3, 3), (1, 5)), ((2, 6), (3, 1)), ((3, 3, 3, 3), (1, 2, 4, 8)), ((10, 3), (1, 1))],
)
def test_the_interval_on_these_machines_holds_the_truth_as_often_as_it_says(processes: tuple[int, ...], spreads: tuple[float, ...]) -> None:
    """Welch and Satterthwaite's falls to 89 % in the third of these worlds."""
    rng, rounds = np.random.default_rng(1), 500
    machines = [str(i) for i, n in enumerate(processes) for _ in range(n)]
    sd = np.repeat(spreads, processes)
    held = [abs(found.mean) <= (found.half or 0) for _ in range(rounds) if (found := over_machines(rng.normal(0, sd), machines, 0.95))]
    assert np.mean(held) > 0.94


@pytest.mark.parametrize("spreads", [(0, 1, 1, 1, 1), (1, 0.1, 3, 1), (2, 1, 2, 1, 2, 1)])
def test_the_interval_on_a_machine_like_these_holds_the_mean_of_all(spreads: tuple[float, ...]) -> None:
    """The first number: how much machines differ; then how much the processes of each do, of which there are three."""
    rng, rounds = np.random.default_rng(2), 500
    between, *within = spreads
    means = between * rng.normal(size=(rounds, len(within))) + rng.normal(0, np.array(within) / np.sqrt(3), (rounds, len(within)))
    held = [half is not None and abs(np.mean(own)) <= half for own in means for half in [like_these(list(own), 0.95)]]
    assert np.mean(held) > 0.94
