"""Figures of eviction and of the host-memory tier, drawn from null engines that follow a law: 5 ms and 0.1 ms for each computed token."""

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

from coldprefix.analysis.statistics import Estimate
from coldprefix.figures import fig10_eviction, fig11_tier
from coldprefix.study.config import Config

POOL = {"prefix_caching": True, "block_tokens": 128, "layers": "full", "blocks": 13, "retention_tokens": 0}
SLOT = {"prompt_cache": True, "window_tokens": 0, "recurrent": False, "cache_reuse": 0, "kv_bytes_per_token": 1024, "kv_unified": False}


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def in_force(job: dict[str, Any]) -> dict[str, Any]:
    return POOL if job["engine"] == "vllm" else SLOT | {key: job["settings"][key] for key in ("slots", "host_cache_mib")}


def test_fig10_shows_what_is_measured_beside_what_the_rule_says(values: Values, config: Config, tmp_path: Path) -> None:
    """The null engines have a pool without end and one slot, whatever is in force: the rule of what is in force says something else."""
    values["sweeps"]["eviction"]["partners"] = ["foreign-384", "foreign-1152"]
    data = fake_run.measured(values, ["phase2", "phase3a"], ["eviction"])
    for record in data.provenance:
        record["in_force"] = in_force(record["job"])  # type: ignore[index]
    drawing = fig10_eviction.draw(data, config.figures)
    reader, text = written(drawing, tmp_path, config)
    check_fonts(reader)
    assert all(
        word in text.replace("\n", " ") for word in ("tokens of other prompts in between", "small pool", "4 slots", "1 slot and tier")
    )

    def of(variant: str, column: str) -> list[float]:
        own = drawing.rows.filter(pl.col("variant") == f"eviction/{variant}", pl.col("n") > 0).sort("foreign_tokens")
        assert own["foreign_tokens"].to_list() == [0, 384, 1152]
        return [round(value) for value in own[column]]

    assert of("pool", "measured_pct") == [100, 100, 100] and of("pool", "most_pct") == [100, 100, 75], (
        "12 blocks: the fourth of four is lost"
    )
    assert of("four_slots", "measured_pct") == [100, 0, 0] and of("four_slots", "most_pct") == [100, 100, 0]
    assert of("one_slot", "measured_pct") == of("one_slot", "least_pct") == [100, 0, 0]
    assert of("tier_2mib", "measured_pct") == [100, 0, 0] and of("tier_2mib", "least_pct") == [100, 100, 100]
    wrong = {"pool": 1, "four_slots": 1, "one_slot": 0, "tier_2mib": 2}
    assert f"{12 - sum(wrong.values())} of 12 measured values are as predicted" in drawing.caption
    assert drawing.rows.filter(pl.col("n") == 0).height > 50, "lines are drawn from more points than were measured"


def test_fig11_shows_restoring_beside_computing_by_length(values: Values, config: Config, tmp_path: Path) -> None:
    values["sweeps"]["tier"]["configurations"] = ["A32_B32", "A256_B128"]
    data = fake_run.measured(values, ["phase3a"], ["tier"])
    drawing = fig11_tier.draw(data, config.figures)
    reader, text = written(drawing, tmp_path, config)
    check_fonts(reader)
    assert all(word in text.replace("\n", " ") for word in ("restored from the tier", "computed: no tier", "length of the cached prompt"))
    medians = dict(drawing.rows.filter(pl.col("what") == "computed").select("cached_prompt_tokens", "median").iter_rows())
    assert medians == {64: pytest.approx(5 + 0.1 * 88), 384: pytest.approx(5 + 0.1 * 408)}
    kept = drawing.rows.filter(pl.col("what") == "kept")["median"].to_list()
    assert kept == pytest.approx([5 + 0.1 * 24] * 2)
    displacing = drawing.rows.filter(pl.col("what").str.starts_with("displacing"))["median"].to_list()
    assert displacing == pytest.approx([5 + 0.1 * 128] * 4)
    assert "so no crossing is marked" in drawing.caption and "The intervals do not tell at any length" in drawing.caption, "one slot, twice"


def points(*values: float) -> fig11_tier.Points:
    return [(100 * (i + 1), Estimate(6, 3, value, 0.01, None, None)) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("restored", "computed", "at", "words"),
    [
        ((10, 12, 14), (5, 10, 20), 225, "faster from about 225 tokens on"),
        ((1, 2, 3), (5, 10, 20), None, "restoring is faster at every length measured"),
        ((9, 20, 30), (5, 10, 20), None, "restoring is slower at every length measured"),
        ((1, 20, 30), (5, 10, 20), None, "faster at some lengths and slower at longer ones"),
        ((), (5, 10, 20), None, "Too little was measured"),
    ],
)
def test_where_restoring_begins_to_be_worth_it(
    restored: tuple[float, ...], computed: tuple[float, ...], at: float | None, words: str
) -> None:
    found = fig11_tier.crossing(points(*restored), points(*computed))
    assert found == (None if at is None else pytest.approx(at))
    assert words in fig11_tier.told(points(*restored), points(*computed), found)
