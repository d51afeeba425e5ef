"""The figures that show no cells of one run: the calibration, and two runs side by side."""

from __future__ import annotations

from pathlib import Path

import fake_run
import polars as pl
from conftest import Values

from coldprefix.analysis import compare
from coldprefix.data import tables
from coldprefix.figures import calibration, captions, comparison, style
from coldprefix.instrument.calibration import SAMPLES
from coldprefix.study.config import Config


def test_the_calibration_is_drawn_for_every_engine(config: Config, tmp_path: Path) -> None:
    rows = [
        dict.fromkeys(SAMPLES) | {"beside": 2, "engine": engine, "scripted_ttft_ms": ttft, "scripted_tok_s": rate, "tokens": tokens}
        | {"bias_ms": 0.05 + 0.01 * i, "error_pct": 0.1 * i}
        for engine in calibration.LOOKS
        for ttft, rate, tokens in ((5.0, 1000.0, 2), (50.0, 1000.0, 2), (5.0, 100.0, 50), (5.0, 500.0, 50))
        for i in range(5)
    ]  # fmt: skip
    drawing = calibration.draw(pl.DataFrame(rows, schema=tables.schema(SAMPLES)), config.figures)
    style.save(drawing, [tmp_path / "calibration.png"], config.figures)
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert set(drawing.rows["engine"]) == set(calibration.LOOKS) and drawing.rows.height == 3 * 4
    assert drawing.rows.filter(pl.col("quantity") == "bias_ms")["n"].to_list() == [5] * 6


def test_two_runs_are_compared_state_by_state(values: Values, config: Config, tmp_path: Path) -> None:
    runs = [
        compare.Run(Path(name), fake_run.measured(values, ["phase2", "phase3b"], ["main"], noise).trials, {}, {})
        for name, noise in (("before", 0.02), ("after", 0.03))
    ]
    drawing = comparison.draw(compare.compare(*runs), ["before", "after"], ["the engine"], config.figures)
    style.save(drawing, [tmp_path / "comparison.png"], config.figures)
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert captions.INTERVAL in drawing.caption and "the engine" in drawing.caption
    for panel in drawing.figure.axes:
        markers = [line.get_marker() for line in panel.lines]
        for state in ("hit", "miss", "cold"):
            assert markers.count(style.STATE_MARKERS[state]) == len(config.configurations)
