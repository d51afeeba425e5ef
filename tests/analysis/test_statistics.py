"""Intervals over processes: exact where theory gives the value, as wide as the starts differ, and never from too few."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from coldprefix.analysis import statistics
from coldprefix.analysis.linear import fit
from coldprefix.measure import stopping

PROCESSES = ("a", "b", "c")


def trials(by_process: dict[str, list[float]], job: str = "job", **columns: object) -> pl.DataFrame:
    rows = [{"engine_process": p, "job": job, "process": i, "ttft_ms": v} for i, (p, vs) in enumerate(by_process.items()) for v in vs]
    return pl.DataFrame(rows).with_columns(**{name: pl.lit(value) for name, value in columns.items()})


def test_a_cell_s_interval_is_student_s_over_the_medians_of_its_processes() -> None:
    """By scipy's own interval of a mean; trials within a process count as one value."""
    found = statistics.estimate(trials({"a": [10.0, 10.0, 99.0], "b": [11.0, 11.0, 11.0], "c": [12.0, 12.0, 0.5]}), "ttft_ms")
    logs = np.log([10.0, 11.0, 12.0])
    low, high = stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs))
    assert (found.n, found.processes, found.df) == (9, 3, 2)
    assert (found.value, found.low, found.high) == pytest.approx((np.exp(logs.mean()), np.exp(low), np.exp(high)))
    assert found.sd == pytest.approx(np.std(logs, ddof=1))


def test_more_trials_do_not_narrow_what_starts_make_wide() -> None:
    few, many = ({p: [v] * n for p, v in zip(PROCESSES, (100.0, 110.0, 120.0), strict=True)} for n in (2, 200))
    a, b = (statistics.estimate(trials(cell), "ttft_ms") for cell in (few, many))
    assert (a.low, a.high) == (b.low, b.high)


@pytest.mark.parametrize(
    "cell",
    [
        {"a": [10.0] * 20, "b": [11.0] * 20},  # two processes
        {"a": [10.0], "b": [11.0], "c": [12.0]},  # three trials
        {"a": [10.0] * 100},
    ],
)
def test_too_few_processes_or_trials_have_no_interval(cell: dict[str, list[float]]) -> None:
    found = statistics.estimate(trials(cell), "ttft_ms")
    assert found.value is not None and (found.low, found.high, found.df) == (None, None, None)


def test_nothing_has_no_value() -> None:
    assert statistics.estimate(trials({"a": [1.0]}).clear(), "ttft_ms") == statistics.NOTHING


def test_what_a_start_does_to_both_partners_is_not_in_their_ratio() -> None:
    starts = {"a": 1.0, "b": 1.3, "c": 0.8}
    hit, miss = (trials({p: [ms * s] * 3 for p, s in starts.items()}) for ms in (10.0, 40.0))
    found = statistics.ratio(miss, hit)
    assert (found.value, found.low, found.high) == pytest.approx((4.0, 4.0, 4.0))
    cost = statistics.difference(miss, hit)
    assert (
        cost.value == pytest.approx(30 * np.mean(list(starts.values()))) and cost.low is not None and cost.low < 25 < 35 < (cost.high or 0)
    )


def test_states_that_were_never_in_one_process_are_not_compared() -> None:
    assert statistics.ratio(trials({"a": [1.0] * 9}), trials({"b": [1.0] * 9})) == statistics.NOTHING


def test_two_cells_that_visit_one_server_are_one_process() -> None:
    """The hit job and the miss job of `vllm serve` share three servers: three values, not six."""
    hit = pl.concat([trials({p: [10.0] * 3 for p in PROCESSES}, job) for job in ("hit", "miss")])
    miss = pl.concat([trials({p: [ms] * 3 for p in PROCESSES}, job) for job, ms in (("hit", 40.0), ("miss", 42.0))])
    found = statistics.ratio(miss, hit)
    assert found.processes == 3 and found.value == pytest.approx(np.sqrt(4.0 * 4.2))


def test_ms_per_token_divides_by_what_was_computed_more() -> None:
    hit, miss = (trials({p: [ms] * 3 for p in PROCESSES}, tokens=tokens) for ms, tokens in ((10.0, 24), (138.0, 280)))
    assert statistics.difference(miss, hit, per="tokens").value == pytest.approx(0.5)


def test_cells_of_different_processes_are_compared_by_welch() -> None:
    one, other = [10.0, 10.5, 11.0], [20.0, 20.1, 20.2, 20.3]
    a, b = (trials({f"{k}{i}": [v] * 3 for i, v in enumerate(vs)}) for k, vs in (("x", other), ("y", one)))
    found = statistics.apart(a, b, "ttft_ms")
    low, high = stats.ttest_ind(np.log(other), np.log(one), equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((np.exp(low), np.exp(high)))


def test_a_median_of_independent_values_has_its_exact_interval() -> None:
    values = np.random.default_rng(0).normal(0, 1, 40).tolist()
    low, high = statistics.median_interval(values) or (0.0, 0.0)
    # Ranks 14 and 27 of 40, as tables of the sign test say.
    assert (low, high) == (sorted(values)[13], sorted(values)[26])
    assert statistics.median_interval([1.0] * 5) is None


def test_the_table_of_t_is_right() -> None:
    """The programs of cells have no scipy."""
    assert pytest.approx([stats.t.ppf(0.975, df) for df in range(2, 2 + len(stopping.T95))], abs=1e-6) == stopping.T95


def test_a_cell_stops_when_its_interval_over_processes_is_narrow_and_not_before() -> None:
    own, partner = [[40.0] * 4, [52.0] * 4, [33.0] * 4], [[10.0], [13.0], [8.25]]
    assert stopping.precise_enough(own, partner, 0.01), "the starts are in both"
    assert not stopping.precise_enough(own, [[], [], []], 0.5)
    assert not stopping.precise_enough(own[:2], partner[:2], 0.5)


def line(process: str, start: float, bend: float = 0.0) -> pl.DataFrame:
    x = np.array([32, 128, 256, 512, 640, 768, 928])
    ms = start * (5 + 0.5 * x * (1 + bend * x / 928))
    return pl.DataFrame({"engine_process": process, "stream_evaluated_tokens": x, "ttft_ms": ms})


def test_starts_that_differ_bend_no_line() -> None:
    found = fit(pl.concat([line(p, s) for p, s in zip(PROCESSES, (0.92, 1.0, 1.08), strict=True)]))
    assert found is not None and found.slope.value == pytest.approx(0.5) and found.bend_pct.value == pytest.approx(0, abs=1e-9)
    assert all(abs(off.value or 0) < 1e-9 for off in found.deviations_pct.values()) and len(found.deviations_pct) == 7


def test_a_bend_is_seen() -> None:
    found = fit(pl.concat([line(p, s, 0.2) for p, s in zip(PROCESSES, (0.92, 1.0, 1.08), strict=True)]))
    assert found is not None and found.bend_pct.high is not None and found.bend_pct.high < -3
