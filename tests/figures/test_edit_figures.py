"""Figures of edits and architectures, drawn from null engines that follow a law: 5 ms and 0.1 ms for each computed token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_run
import matplotlib.pyplot as plt
import polars as pl
import pytest
from conftest import Values
from test_figures import check_fonts, written

from coldprefix.advice import figure as advice_figure
from coldprefix.advice import table as advice_table
from coldprefix.figures import fig3_architectures, fig7_depth, fig8_edits, fig9_granularity
from coldprefix.study import registry
from coldprefix.study.by_layout import sweep_of
from coldprefix.study.config import Config
from coldprefix.study.prompt_file import Prompt


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_fig7_shows_the_cost_of_an_edit_by_its_depth(values: Values, config: Config, tmp_path: Path) -> None:
    drawing = fig7_depth.draw(fake_run.measured(values, list(registry.phases()), ["depth"]), config.figures)
    reader, text = written(drawing, tmp_path, config)
    check_fonts(reader)
    assert all(
        word in text.replace("\n", " ")
        for word in ("depth of the edit (%)", "vLLM HTTP", "llama.cpp Python", "tokens reused, says the engine")
    )
    llama = drawing.rows.filter(pl.col("phase") == "phase3b")
    assert llama["depth_pct"].to_list()[:2] == [0.0, pytest.approx(12, abs=0.1)] and llama["depth_pct"].to_list()[-1] == 100
    assert llama["reused_tokens"].to_list() == llama["common_tokens"].to_list(), "a slot reuses all that is in common"
    assert llama["predicted_ms"].to_list() == pytest.approx(llama["median"].to_list()), "the law is a line in the computed tokens"
    vllm = drawing.rows.filter(pl.col("phase") == "phase1")
    assert all(reused % 128 == 0 for reused in vllm["reused_tokens"].to_list()), "whole blocks"


def test_fig7_draws_a_curve_for_each_length_of_the_prompt(values: Values, config: Config, tmp_path: Path) -> None:
    values["sweeps"]["depth"] |= {"configurations": ["A320_B160", "A640_B320"], "mixed": True}
    drawing = fig7_depth.draw(fake_run.measured(values, ["phase3b"], ["depth"]), config.figures)
    _, text = written(drawing, tmp_path, config)
    assert "480 tokens" in text and "960 tokens" in text
    short, long = (drawing.rows.filter(pl.col("prompt_tokens") == n) for n in (480, 960))
    assert short.height == long.height == 10 and short["depth_pct"].to_list() == pytest.approx(long["depth_pct"].to_list(), abs=0.2)
    assert short["predicted_ms"].to_list() == pytest.approx(short["median"].to_list()), "each length has a line of its own"
    assert long["predicted_ms"].to_list() == pytest.approx(long["median"].to_list())


def test_fig8_shows_each_kind_of_edit(values: Values, config: Config, tmp_path: Path) -> None:
    drawing = fig8_edits.draw(fake_run.measured(values, list(registry.phases()), ["edits"]), config.figures)
    _, text = written(drawing, tmp_path, config)
    assert all(word in text for word in ("delete-16@50%", "swap-96@20%-60%", "computed again (%)", "--cache-reuse"))
    own = {row["state"]: row for row in drawing.rows.filter(pl.col("phase") == "phase3b").iter_rows(named=True)}
    assert own["prepend-16"]["computed_again_pct"] == 100
    assert own["insert-16@50%"]["median"] == pytest.approx(0.1 * (16 + 480)), "the new tokens and all behind them, beyond a hit's question"
    assert own["truncate@50%"]["computed_again_pct"] == 0 and own["truncate@50%"]["median"] == pytest.approx(0)


def test_fig9_shows_the_tokens_that_blocks_lose(values: Values, config: Config, tmp_path: Path) -> None:
    drawing = fig9_granularity.draw(fake_run.measured(values, ["phase1", "phase3b"], ["granularity"]), config.figures)
    written(drawing, tmp_path, config)
    lost = dict(drawing.rows.filter(pl.col("phase") == "phase1").select("warmup_prompt_tokens", "most_lost").iter_rows())
    assert {length: lost[length] for length in (127, 128, 129, 192, 255, 256)} == {127: 127, 128: 0, 129: 1, 192: 64, 255: 127, 256: 0}
    assert set(drawing.rows.filter(pl.col("phase") == "phase3b")["most_lost"]) == {0}


def test_fig3_shows_what_survives_by_architecture(values: Values, config: Config, tmp_path: Path) -> None:
    drawing = fig3_architectures.draw(fake_run.measured(values, ["phase2", "phase3a"], ["architectures"]), config.figures)
    _, text = written(drawing, tmp_path, config)
    assert all(word in text for word in ("gemma3", "mamba2", "edit at 50%", "again at 10%", "back after 90%", "\u2013"))
    row = drawing.rows.row(
        by_predicate=(pl.col("variant") == "architectures/llama") & (pl.col("asked") == "edit at 90%") & (pl.col("phase") == "phase3a"),
        named=True,
    )
    assert (row["reused_tokens"], row["prompt_tokens"]) == (864, 960)


PROMPT = Prompt.model_validate(
    {
        "requests_per_hour": 600,
        "segments": [
            {"name": "date", "tokens": 12, "changes": "each minute"},
            {"name": "system", "tokens": 700, "changes": "weekly"},
            {"name": "question", "tokens": 24, "changes": "each request"},
        ],
    }
)
IN_FORCE: dict[str, dict[str, Any]] = {
    "phase1": {"prefix_caching": True, "block_tokens": 128, "layers": "full", "blocks": 227, "retention_tokens": 0},
    "phase3b": {"prompt_cache": True, "window_tokens": 0, "recurrent": False, "cache_reuse": 0},
}


def test_the_advice_predicts_what_is_measured(values: Values, config: Config, tmp_path: Path) -> None:
    values = values | {"sweeps": values["sweeps"] | {"layout": sweep_of(PROMPT)}}
    data = fake_run.measured(values, ["phase1", "phase3b"], ["layout"])
    advice = advice_table.advise(PROMPT, data.trials, IN_FORCE)
    assert advice["segments"].to_list() == ["date, system, question", "system, date, question"] * 2
    now, best = advice.filter(pl.col("phase") == "phase3b").iter_rows(named=True)
    assert now["computed_tokens"] == pytest.approx(0.1 * 736 + 0.9 * 24, rel=0.01)
    assert best["computed_tokens"] == pytest.approx(0.1 * 36 + 0.9 * 24, rel=0.01)
    for row in (now, best):
        assert row["predicted_ms"] == pytest.approx(5 + 0.1 * row["computed_tokens"], rel=0.02)
        assert row["measured_ms"] == pytest.approx(row["predicted_ms"], rel=0.02)
    for kind in ("predicted", "measured"):
        assert now[f"{kind}_saved_ms"] is None, "as it stands nothing is saved"
        assert best[f"{kind}_saved_ms"] == pytest.approx(0.1 * 70, rel=0.02)
        assert best[f"{kind}_saved_low"] <= best[f"{kind}_saved_ms"] <= best[f"{kind}_saved_high"]
    page = advice_table.page(advice, PROMPT, "weights; machine")
    assert "**llama.cpp Python**: write system, date, question: 95 computed tokens become 25" in page and "(measured)" in page
    drawing = advice_figure.draw(advice, config.figures, "weights; machine")
    drawing.figure.savefig(tmp_path / "advice.png")
    assert "expected TTFT (ms)" in [axes.get_ylabel() for axes in drawing.figure.axes]
