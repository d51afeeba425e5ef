"""A/A comparisons: found where the same was computed, false alarms where the machine drifts, none where nothing differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
from raw_data import one_trial

from coldprefix.analysis import self_check
from coldprefix.analysis.summary import trials_of
from coldprefix.data import tables
from coldprefix.data.raw import as_frame

JOBS = ("phase3a/A512_B256/hit", "phase3a/A512_B256/miss")


def run(ms: Callable[[str, str], float], seed: int = 0, noise: float = 0.01) -> pl.DataFrame:
    """Two jobs of three processes, each with four trials of both states; ``ms`` of (job, state)."""
    chance = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for job in JOBS:
        for process in range(3):
            start = 1 + 0.1 * chance.standard_normal()
            for trial in range(4):
                for state, reused in (("hit", 8), ("miss", 0)):
                    keys = {"job": job, "process": process, "engine_process": f"{job} {process}", "trial": trial, "state": state}
                    keys |= {"own": job.endswith(state)}
                    counts = {"cached_tokens": reused, "evaluated_tokens": 10 - reused}
                    time = start * ms(job, state) * (1 + noise * chance.standard_normal())
                    rows += [row | keys for row in one_trial(ttft_ms=time, **counts)]
    return trials_of(as_frame(rows).lazy()).collect().cast(tables.schema(tables.TRIALS))


def test_the_same_effect_in_both_jobs_is_found_and_holds_1() -> None:
    found = self_check.self_check(run(lambda job, state: 40.0 if state == "miss" else 10.0))
    tables.validate(found, self_check.SELF_CHECK, "self_check")
    assert set(found["quantity"]) == {"effect miss/hit A512_B256", "warmup 10+0", "ttft 2+8", "ttft 10+0"}
    assert set(zip(found["cell_one"], found["cell_other"], strict=True)) == {JOBS}
    assert found["contains_one"].all() and "0 of 4 (0%)" in self_check.text(found)


def test_an_effect_that_the_two_jobs_see_differently_is_an_alarm() -> None:
    found = self_check.self_check(run(lambda job, state: (60.0 if job == JOBS[1] else 40.0) if state == "miss" else 10.0))
    assert found.filter(pl.col("quantity").str.starts_with("effect"))["contains_one"].to_list() == [False]
    assert "effect   1 of 1 (100%): phase3a 1 of 1" in self_check.text(found)


def test_false_alarms_come_as_often_as_they_should() -> None:
    """Starts differ by 10 %: of 120 runs of which nothing is wrong about one in twenty is an alarm."""
    alarms = []
    for seed in range(120):
        found = self_check.self_check(run(lambda job, state: 40.0 if state == "miss" else 10.0, seed))
        alarms += (~found.filter(pl.col("quantity").str.starts_with("effect"))["contains_one"]).to_list()
    assert len(alarms) == 120 and np.mean(alarms) < 0.09


def test_repeated_prompts_and_other_variants_are_no_partners() -> None:
    trials = run(lambda job, state: 10.0)
    assert self_check.self_check(trials.with_columns(content=pl.lit("repeated"))).is_empty() and self_check.text(trials.clear()) == ""
    apart = trials.with_columns(variant=pl.when(pl.col("job") == JOBS[0]).then(pl.lit("a")).otherwise(pl.lit("b")))
    assert self_check.self_check(apart).is_empty()
