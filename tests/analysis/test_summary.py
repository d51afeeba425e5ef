"""Trials and statistics: every number from rows whose result is known by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from raw_data import one_trial

from coldprefix.analysis.summary import summary_of, table, trials_of
from coldprefix.data import tables
from coldprefix.data.raw import as_frame


def trials(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return trials_of(as_frame(rows).lazy()).collect().cast(tables.schema(tables.TRIALS))


def test_a_trial_s_metrics() -> None:
    (trial,) = trials(one_trial()).iter_rows(named=True)
    assert trial["warmup_ms"] == 300.0 and trial["rewarm_ms"] == 7.0 and trial["rewarm_cached_tokens"] == 7
    assert trial["ttft_ms"] == 23.6 and trial["ttft_non_streaming_ms"] == 24.2
    # Each request's time less the engine's own for it: 1.5 ms of the stream, 2.2 of the query.
    assert trial["overhead_ms"] == pytest.approx(1.5 - 2.2)
    assert trial["client_ms"] == pytest.approx(1.5)
    assert trial["throughput_tok_s"] is None, "four tokens are too few"
    (trial,) = trials(one_trial(token_times_ms=[23.6 + 5 * i for i in range(20)])).iter_rows(named=True)
    assert trial["throughput_tok_s"] == pytest.approx(200)
    assert trial["valid"] is True


def test_what_is_unknown_stays_null() -> None:
    rows = one_trial(engine_prompt_ms=None, token_times_ms=[23.6])
    (trial,) = trials([r | {"interface": "python", "phase": "phase3b"} for r in rows]).iter_rows(named=True)
    unknown = ("client_ms", "engine_prompt_ms", "throughput_tok_s", "ttft_non_streaming_ms", "overhead_ms", "foreign_cpu")
    assert {key: trial[key] for key in unknown} == dict.fromkeys(unknown)
    assert trial["query_ms"] == 24.2


def many(n: int, state: str, ttft: Callable[[int], float], rejected: int = 0) -> list[dict[str, Any]]:
    """``n`` valid trials of each of three processes, which differ by 10 % in speed, and so many rejected ones."""
    rows = []
    for process, speed in enumerate((0.9, 1.0, 1.1)):
        for t in range(n + rejected + 1):
            changes: dict[str, Any] = {"trial": t, "state": state, "burn_in": t == 0, "process": process, "engine_process": str(process)}
            changes |= {"own": state == "hit"}
            if t > n:
                changes["rejection"] = "reused 5 tokens, should be 0"
            rows += [r | changes for r in one_trial(ttft_ms=1e6 if t == 0 or t > n else speed * ttft(t))]
    return rows


def test_summary_leaves_out_burn_in_and_rejected_trials_and_counts_them() -> None:
    found = summary_of(trials(many(5, "hit", lambda t: 10.0 + t) + many(4, "miss", lambda t: 100.0 + t, rejected=2)))
    tables.validate(found, tables.SUMMARY, "summary")
    hit = found.filter(pl.col("metric") == "ttft_ms", pl.col("state") == "hit").row(0, named=True)
    assert (hit["n"], hit["processes"], hit["df"], hit["n_rejected"], hit["n_burn_in"]) == (15, 3, 2, 0, 3)
    assert hit["median"] == pytest.approx(13 * (0.9 * 1.0 * 1.1) ** (1 / 3)) and hit["mean"] == pytest.approx(13.0)
    assert hit["sd_processes"] == pytest.approx(np.std(np.log([0.9, 1.0, 1.1]), ddof=1))
    assert hit["ci_low"] < 11 and hit["ci_high"] > 15, "wide, since the processes differ"
    miss = found.filter(pl.col("metric") == "ttft_ms", pl.col("state") == "miss").row(0, named=True)
    assert (miss["n"], miss["n_rejected"]) == (12, 6)
    effect = found.filter(pl.col("metric") == "ttft_degradation_pct").row(0, named=True)
    assert effect["state"] == "miss" and effect["median"] == pytest.approx(100 * (102.5 / 13 - 1))
    assert effect["ci_low"] == pytest.approx(effect["ci_high"]), "partners: the speed of a process is in both"
    cost = found.filter(pl.col("metric") == "ttft_cost_ms").row(0, named=True)
    assert cost["median"] == pytest.approx(89.5) and cost["unit"] == "ms" and cost["ci_low"] < 80 < 99 < cost["ci_high"]
    text = table(found)
    assert "688 [" in text and "89.5 [" in text and text.index("ms more") < text.index("% more")


def test_a_cell_without_a_valid_trial_has_null_statistics() -> None:
    found = summary_of(trials(many(0, "miss", lambda t: 1.0, rejected=3)))
    ttft = found.filter(pl.col("metric") == "ttft_ms").row(0, named=True)
    assert (ttft["n"], ttft["n_rejected"], ttft["mean"], ttft["median"], ttft["ci_low"]) == (0, 9, None, None, None)
    assert "-" in table(found)
