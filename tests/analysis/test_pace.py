"""Trials whose engine time does not go with the tokens that they are said to have computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from coldprefix.analysis.caveats import caveats_of
from coldprefix.analysis.pace import with_pace
from coldprefix.data import tables


def trials(times: Sequence[float | None], computed: int = 200, **changes: Any) -> pl.DataFrame:
    own: dict[str, Any] = {"job": "phase3b/A512_B256/miss", "configuration": "A512_B256", "state": "miss", "own": True, "valid": True}
    own |= {"burn_in": False, "process": 0, "stream_evaluated_tokens": computed, "engine_ttft_ms": None, "engine_process": "1-1"} | changes
    schema = {**tables.schema(tables.TRIALS)}
    rows = [own | {"trial": trial, "engine_prompt_ms": ms} for trial, ms in enumerate(times)]
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema).drop("pace", "off_pace")


def judged(frame: pl.DataFrame) -> pl.DataFrame:
    return with_pace(frame.lazy()).collect()


NOISE = [100.0, 103, 98, 101, 97, 102, 104, 99]


def test_a_prompt_that_was_computed_although_it_is_counted_as_reused_is_flagged_and_stays() -> None:
    found = judged(trials([*NOISE, 1000.0]))
    assert found["off_pace"].to_list() == [False] * 8 + [True] and found["pace"][-1] == pytest.approx(1000 / 101)
    assert found["valid"].all(), "it is shown, not dropped"
    found = judged(trials([*NOISE, 20.0]))
    assert found["off_pace"].to_list() == [False] * 8 + [True], "too fast is as doubtful"


def test_what_is_usual_in_a_cell_is_not_flagged() -> None:
    assert not judged(trials([*NOISE, 140.0]))["off_pace"].any(), "a neighbour's noise"
    wide = [50.0, 100, 200, 80, 150, 60, 120, 90, 240]
    assert not judged(trials(wide))["off_pace"].any(), "where all trials differ, one more does not stand out"


def test_other_lengths_are_other_cells() -> None:
    one = pl.concat([trials(NOISE), trials([ms / 8 + 20 for ms in NOISE], computed=24, state="hit")])
    assert not judged(one)["off_pace"].any()


def test_nothing_is_judged_without_times_or_with_too_few() -> None:
    assert judged(trials(NOISE[:5]))["off_pace"].to_list() == [None] * 5
    assert judged(trials([None] * 8))["pace"].null_count() == 8
    found = judged(trials([*NOISE, 1000.0]).with_columns(valid=pl.col("trial") < 8))
    assert found["off_pace"].to_list() == [False] * 8 + [None], "a rejected trial is not judged, nor does it judge"


def test_the_summary_warns_of_them() -> None:
    warned = caveats_of(judged(trials([*NOISE, 1000.0])), []).filter(pl.col("kind") == "pace")
    assert warned.height == 1 and "1 of 9 trials took another engine time" in warned["message"][0]
    assert "at most 9.9 times theirs (miss A512_B256, process 0, trial 8)" in warned["message"][0]
    partners = judged(pl.concat([trials(NOISE), trials([*NOISE, 1000.0], own=False, state="hit", computed=24)]))
    assert "1 of 17 trials" in caveats_of(partners, []).filter(pl.col("kind") == "pace")["message"][0], "a partner's, too"
    assert "pace" not in caveats_of(judged(trials(NOISE)), [])["kind"].to_list()
