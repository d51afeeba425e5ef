"""C9 by counts, and C10 by the bend of a line: what a miss destroys, and what a token costs."""

from __future__ import annotations

import random

import polars as pl
import pytest
from claim_data import Q, Rows, both, cell, check, frame

from coldprefix.study import registry

# --- C9 -------------------------------------------------------------------------------------------------------------------

BLOCKS = ("phase1", "phase2")
BY_PHASE = dict(zip(registry.phases(), ("C9a", "C9b", "C9c", "C9d"), strict=True))


def rewarms(kept: tuple[str, ...], variant: str = "main", cheap_ms: float = 7.0, dear_ms: float = 390.0) -> pl.DataFrame:
    """Re-warms of all backends: on ``kept`` ones a miss destroys nothing. ``dear_ms``: after a miss, elsewhere."""
    rows: list[Rows] = []
    for phase in registry.phases():
        own = both(phase, cheap_ms, cheap_ms if phase in kept else dear_ms, "rewarm_ms", variant)
        rows.append([row | ({"rewarm_cached_tokens": 640} if phase in kept else {}) for row in own])
    return frame(*rows)


def test_c9_is_told_for_each_backend_by_what_the_re_warm_reuses() -> None:
    found = {phase: check(claim, rewarms(BLOCKS)) for phase, claim in BY_PHASE.items()}
    assert [row["verdict"] for row in found.values()] == ["refuted", "refuted", "supported", "supported"]
    assert found["phase1"]["effect"] == pytest.approx(0) and found["phase3b"]["effect"] == pytest.approx(100)
    assert "reuses 99.9 % of [A, B] after a hit, 0 % after a miss, and takes 55.7 [" in found["phase3b"]["finding"]


def test_c9_is_decided_by_counts_though_times_would_say_otherwise() -> None:
    """A machine so fast that computing costs nothing, and one on which the same reuse takes ten times as long."""
    fast = rewarms((), dear_ms=7.0)
    assert [check(claim, fast)["verdict"] for claim in BY_PHASE.values()] == ["supported"] * 4
    slow = rewarms(tuple(registry.phases())).with_columns(
        rewarm_ms=pl.when(pl.col("state") == "miss").then(10 * pl.col("rewarm_ms")).otherwise("rewarm_ms")
    )
    found = [check(claim, slow) for claim in BY_PHASE.values()]
    assert [row["verdict"] for row in found] == ["refuted"] * 4 and "takes 10 [" in found[0]["finding"]


def test_c9_needs_a_hit_that_keeps_the_prefix_as_its_control() -> None:
    lost = rewarms(()).with_columns(rewarm_cached_tokens=pl.lit(0, pl.Int32))
    assert "a control that keeps the prefix" in check("C9c", lost)["finding"] and check("C9c", lost)["verdict"] == "not decided"
    assert check("C9c", rewarms(()).filter(pl.col("state") == "miss"))["verdict"] == "not decided"


def test_c9_tells_the_host_tier_apart() -> None:
    measured = pl.concat([rewarms((), "host_tier/off"), rewarms(("phase3a",), "host_tier/on")])
    assert (check("C9e", measured)["verdict"], check("C9f", measured)["verdict"]) == ("supported", "refuted")


# --- C10 ------------------------------------------------------------------------------------------------------------------

LENGTHS = (8, 104, 232, 488, 616, 744, 904)
SLOPE = 0.5  # ms a token


def scaling(
    per_token: float = 0.0,
    starts_sd: float = 0.0,
    noise: float = 0.0,
    processes: int = 3,
    phases: tuple[str, ...] = tuple(registry.phases()),
    lengths: tuple[int, ...] = LENGTHS,
    seed: int = 1,
    off: dict[int, float] | None = None,
) -> pl.DataFrame:
    """Misses and hits of the mixed sweep: all lengths in each process.

    A miss takes 10 ms and SLOPE a token, which becomes dearer as a prompt grows: by ``per_token`` (0.2: 20 %) for its last token at 928,
    and times ``off`` at a length. A hit takes 15 ms and 0.01 ms for each cached token.
    """
    draw = random.Random(seed)
    rows: list[Rows] = []
    for phase in phases:
        factors = [1 + draw.gauss(0, starts_sd) for _ in range(processes)]
        for b in lengths:
            computed = b + Q
            miss = 10 + SLOPE * (computed + per_token * computed**2 / (2 * 928)) * (off or {}).get(computed, 1)
            for state, ms in (("miss", miss), ("hit", 15 + 0.01 * (16 + b))):
                own = cell(phase, "scaling", f"A16_B{b}", state, n=2, starts=tuple(factors), job=f"{phase}/scaling/mixed/miss", ttft_ms=ms)
                rows.append([row | {"ttft_ms": row["ttft_ms"] * (1 + draw.gauss(0, noise))} for row in own])
    return frame(*rows)


def test_c10_is_supported_by_a_line_on_every_backend_and_tells_both_slopes() -> None:
    found = check("C10", scaling())
    assert found["verdict"] == "supported" and found["unit"] == "%" and abs(found["effect"]) < 0.1 and found["n"] == 4 * 7 * 6
    assert "0.497 [0.497, 0.497] ms a token computed" in found["finding"]
    assert "0.00995 [0.00995, 0.00995] ms a token reused (hits that compute 24)" in found["finding"]


@pytest.mark.parametrize("seed", range(20))
def test_c10_does_not_refute_a_line_because_processes_start_differently(seed: int) -> None:
    assert check("C10", scaling(starts_sd=0.08, noise=0.03, seed=seed))["verdict"] != "refuted"


def test_c10_is_supported_by_a_line_whose_processes_start_differently_without_noise() -> None:
    assert check("C10", scaling(starts_sd=0.08))["verdict"] == "supported"


@pytest.mark.parametrize("seed", range(20))
def test_c10_does_not_support_a_bend(seed: int) -> None:
    """A token that costs 20 % more at the end of the range than at its beginning."""
    assert check("C10", scaling(per_token=0.25, starts_sd=0.03, noise=0.01, seed=seed))["verdict"] != "supported"


def test_c10_is_refuted_by_a_bend_that_is_certainly_beyond_the_margin() -> None:
    found = check("C10", scaling(per_token=0.6))
    assert found["verdict"] == "refuted" and found["effect_high"] < -3


def test_c10_is_not_decided_by_noise_however_large() -> None:
    found = check("C10", scaling(noise=0.3))
    assert found["verdict"] == "not decided" and found["effect_high"] - found["effect_low"] > 6


def test_c10_is_not_supported_by_lengths_off_the_line_that_are_no_bend() -> None:
    found = check("C10", scaling(off={640: 1.2, 768: 1.1}))
    assert abs(found["effect"]) < 3 and found["verdict"] == "not decided"
    assert "not certainly within 10 % at 640 tokens" in found["finding"]


def test_c10_is_not_decided_by_three_lengths_by_two_processes_or_without_a_phase() -> None:
    few = check("C10", scaling(lengths=(104, 488, 904)))
    assert few["verdict"] == "not decided" and "valid trials of 3 lengths" in few["finding"] and "needs 4" in few["finding"]
    two = check("C10", scaling(processes=2))
    assert two["verdict"] == "not decided" and "2 engine processes" in two["finding"] and "an interval needs" in two["finding"]
    assert check("C10", scaling(phases=BLOCKS))["verdict"] == "not decided"
