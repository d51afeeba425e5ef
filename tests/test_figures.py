"""Figures as files: format, size, fonts, rows; what they look like is for eyes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from null_engine import NullSession
from pypdf import PdfReader

from coldprefix import aggregate, protocol, tables
from coldprefix.config import PHASES, Config
from coldprefix.figures import fig1, phase_panels, style
from coldprefix.job import Job

VALUES = ("median", "ci_low", "ci_high")
Measured = tuple[pl.DataFrame, list[dict[str, Any]]]


@pytest.fixture
def measured(make_job: Callable[..., Job]) -> Callable[..., Measured]:
    """A summary and provenance of null engines for the phases asked for."""

    def measure(*phases: str) -> Measured:
        rows, provenance = [], []
        for phase in phases:
            for configuration in ("A512_B256", "A256_B512"):
                for state, ttft in (("hit", 10.0), ("miss", 80.0)):
                    job = make_job(phase, state, {"settle_ms": 0, "trials": 3, "burn_in": 1}, configuration)
                    rows += protocol.run_replicate(NullSession("slot", ttft_ms=ttft), job, 0, 0, lambda _: None)
                    host = {"cpu": "Some CPU @ 3 GHz", "gpus": []}
                    provenance.append({"host": host, "job": job.model_dump(mode="json")})
        trials = aggregate.trials_of(protocol.as_frame(rows).lazy()).collect().cast(tables.schema(tables.TRIALS))
        return aggregate.summary_of(trials), provenance

    return measure


def written(figure: Any, rows: pl.DataFrame, folder: Path, config: Config) -> tuple[PdfReader, str]:
    paths = [folder / f"figure.{format}" for format in ("pdf", "png", "csv")]
    style.save(figure, rows, paths, config.figures)
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    assert pl.read_csv(io.BytesIO(paths[2].read_bytes())).height == rows.height > 0
    assert sorted(p.name for p in folder.iterdir()) == ["figure.csv", "figure.pdf", "figure.png"]
    reader = PdfReader(paths[0])
    return reader, reader.pages[0].extract_text()


def check_fonts(reader: PdfReader) -> None:
    fonts = [font.get_object() for font in reader.pages[0]["/Resources"]["/Font"].values()]
    assert fonts
    for font in fonts:
        described = font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
        assert "/FontFile2" in described["/FontDescriptor"], "TrueType fonts must be embedded; paper checkers refuse Type 3"


def test_fig1_shows_all_backends_and_says_which_weights(measured: Callable[..., Measured], config: Config, tmp_path: Path) -> None:
    summary, provenance = measured(*PHASES)
    reader, text = written(*fig1.draw(summary, provenance, config.figures), tmp_path, config)
    check_fonts(reader)
    assert float(reader.pages[0].mediabox.width) / 72 == pytest.approx(config.figures.text_in, abs=0.01)
    for words in (
        "vLLM HTTP",
        "vLLM Python",
        "llama.cpp HTTP",
        "llama.cpp Python",
        "time to first token (ms)",
        "random weights",
        "Some CPU",
    ):
        assert words in text, words
    assert "+700 %" in text


def test_no_bar_is_cut_off(measured: Callable[..., Measured], config: Config) -> None:
    """Backends that differ much share an axis: it must reach above the highest interval of all, in every panel."""
    summary, provenance = measured(*PHASES)
    grown = summary.with_columns(pl.when(pl.col("phase") == "phase3b").then(pl.col(c) * 9).otherwise(pl.col(c)).alias(c) for c in VALUES)
    for figure, rows in (
        fig1.draw(grown, provenance, config.figures),
        *(phase_panels.draw(grown, provenance, config.figures, phase) for phase in PHASES),
    ):
        for axes in figure.axes:
            low, high = axes.get_ylim()
            # dataLim encloses bars and error bars; the label below the bars is no data.
            assert low == 0 and axes.dataLim.y1 <= high
        assert rows.height


def test_fig1_of_one_phase_fits_a_column(measured: Callable[..., Measured], config: Config, tmp_path: Path) -> None:
    summary, provenance = measured("phase3b")
    reader, _ = written(*fig1.draw(summary, provenance, config.figures), tmp_path, config)
    assert float(reader.pages[0].mediabox.width) / 72 == pytest.approx(config.figures.column_in, abs=0.01)


@pytest.mark.parametrize("phase", PHASES)
def test_phase_panels(phase: str, measured: Callable[..., Measured], config: Config, tmp_path: Path) -> None:
    summary, provenance = measured("phase3b", phase) if phase != "phase3b" else measured(phase)
    reader, text = written(*phase_panels.draw(summary, provenance, config.figures, phase), tmp_path, config)
    check_fonts(reader)
    for words in ("time to first token (ms)", "throughput (tokens/s)", "warm-up (ms)", "after a miss"):
        assert words in text, words
    assert ("streaming overhead" in text) == (PHASES[phase][1] == "http")


def test_two_runs_over_the_same_data_write_the_same_bytes(measured: Callable[..., Measured], config: Config, tmp_path: Path) -> None:
    summary, provenance = measured("phase3a")
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        written(*fig1.draw(summary, provenance, config.figures), tmp_path / name, config)
        contents.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]


def test_a_cell_without_valid_trials_leaves_a_gap(measured: Callable[..., Measured], config: Config, tmp_path: Path) -> None:
    summary, provenance = measured("phase3a")
    hole = (pl.col("state") == "miss") & (pl.col("configuration") == "A512_B256")
    emptied = summary.with_columns(pl.when(hole).then(None).otherwise(pl.col(c)).alias(c) for c in ("median", "ci_low", "ci_high"))
    written(*fig1.draw(emptied, provenance, config.figures), tmp_path, config)


def test_hit_and_miss_differ_in_more_than_hue() -> None:
    def luminance(colour: str) -> float:
        red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert abs(luminance(style.HIT) - luminance(style.MISS)) > 0.05
    assert style.HATCHES["hit"] != style.HATCHES["miss"]
