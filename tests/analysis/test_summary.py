"""Trials and statistics: every number from rows whose result is known by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_data import one_trial

from coldprefix.analysis.statistics import degradation_pct, estimate
from coldprefix.analysis.summary import summary_of, table, trials_of
from coldprefix.data import tables
from coldprefix.data.raw import as_frame


def trials(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return trials_of(as_frame(rows).lazy()).collect().cast(tables.schema(tables.TRIALS))


def test_a_trial_s_metrics() -> None:
    (trial,) = trials(one_trial()).iter_rows(named=True)
    assert trial["warmup_ms"] == 300.0 and trial["rewarm_ms"] == 7.0 and trial["rewarm_cached_tokens"] == 7
    assert trial["ttft_ms"] == 23.6 and trial["ttft_non_streaming_ms"] == 24.2
    assert trial["overhead_ms"] == pytest.approx(-0.6)
    assert trial["client_ms"] == pytest.approx(1.5)
    assert trial["throughput_tok_s"] == pytest.approx(3 / 0.020)  # three tokens after the first in 20 ms
    assert trial["valid"] is True


def test_what_is_unknown_stays_null() -> None:
    rows = one_trial(engine_prompt_ms=None, token_times_ms=[23.6])
    (trial,) = trials([r | {"interface": "python", "phase": "phase3b"} for r in rows]).iter_rows(named=True)
    unknown = ("client_ms", "engine_prompt_ms", "throughput_tok_s", "ttft_non_streaming_ms", "overhead_ms", "foreign_cpu")
    assert {key: trial[key] for key in unknown} == dict.fromkeys(unknown)
    assert trial["query_ms"] == 24.2


def many(n: int, state: str, ttft: Callable[[int], float], rejected: int = 0) -> list[dict[str, Any]]:
    rows = []
    for t in range(n + rejected + 1):
        changes: dict[str, Any] = {"trial": t, "state": state, "burn_in": t == 0}
        if t > n:
            changes["rejection"] = "reused 5 tokens, should be 0"
        rows += [r | changes for r in one_trial(ttft_ms=1e6 if t == 0 or t > n else ttft(t))]
    return rows


def test_summary_leaves_out_burn_in_and_rejected_trials_and_counts_them() -> None:
    found = summary_of(trials(many(5, "hit", lambda t: 10.0 + t) + many(4, "miss", lambda t: 100.0 + t, rejected=2)))
    tables.validate(found, tables.SUMMARY, "summary")
    hit = found.filter(pl.col("metric") == "ttft_ms", pl.col("state") == "hit").row(0, named=True)
    assert (hit["n"], hit["median"], hit["mean"], hit["n_rejected"], hit["n_burn_in"]) == (5, 13.0, 13.0, 0, 1)
    assert hit["sd"] == pytest.approx(np.std([11, 12, 13, 14, 15], ddof=1))
    assert 11 <= hit["ci_low"] < 13 < hit["ci_high"] <= 15
    miss = found.filter(pl.col("metric") == "ttft_ms", pl.col("state") == "miss").row(0, named=True)
    assert (miss["n"], miss["n_rejected"]) == (4, 2)
    effect = found.filter(pl.col("metric") == "ttft_degradation_pct").row(0, named=True)
    assert effect["state"] == "miss" and effect["median"] == pytest.approx(100 * (102.5 / 13 - 1))
    assert effect["ci_low"] < effect["median"] < effect["ci_high"]
    text = table(found)
    assert "13.0 [" in text and "688 [" in text


def test_a_cell_without_a_valid_trial_has_null_statistics() -> None:
    found = summary_of(trials(many(0, "miss", lambda t: 1.0, rejected=3)))
    ttft = found.filter(pl.col("metric") == "ttft_ms").row(0, named=True)
    assert (ttft["n"], ttft["n_rejected"], ttft["mean"], ttft["median"], ttft["ci_low"]) == (0, 3, None, None, None)
    assert "-" in table(found)


@given(st.lists(st.floats(0.1, 1e6), min_size=3, max_size=30))
@settings(max_examples=25, deadline=None)
def test_an_interval_holds_its_median_and_lies_within_the_data(values: list[float]) -> None:
    found = estimate(np.array(values))
    assert found.ci_low is not None and found.ci_high is not None and found.median is not None
    last_digit = 1 + 1e-12  # a percentile is interpolated
    assert min(values) <= found.ci_low * last_digit and found.ci_low <= found.median <= found.ci_high <= max(values) * last_digit


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """200 simulated cells of 12 trials: a 95 % interval of the median must hold the true one in most of them."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        found = estimate(100 + rng.standard_normal(12))
        assert found.ci_low is not None and found.ci_high is not None
        held += found.ci_low <= 100 <= found.ci_high
    assert 0.88 <= held / 200 <= 1.0


def test_degradation_is_scale_free_and_needs_both_sides() -> None:
    hit, miss = np.array([10.0, 11, 12]), np.array([50.0, 55, 60])
    assert degradation_pct(hit, miss).median == pytest.approx(400)
    assert degradation_pct(7 * hit, 7 * miss).ci_low == pytest.approx(degradation_pct(hit, miss).ci_low)
    assert degradation_pct(hit, np.array([])).median is None
    assert estimate(np.array([3.0, 4.0])).ci_low is None and estimate(np.array([5.0] * 4)).ci_low == 5.0
