"""Calibration: what the harness reads against what null engines did, for TTFT and for throughput."""

from __future__ import annotations

import matplotlib.pyplot as plt
import polars as pl

from coldprefix.figures import captions, style
from coldprefix.instrument.calibration import MEDIAN_BIAS_MS, THROUGHPUT_ERROR_PCT
from coldprefix.study.config import Figures

LOOKS = {"vllm serve": ("phase1", "as vLLM HTTP"), "llama-server": ("phase3a", "as llama.cpp HTTP"), "python": ("phase3b", "in process")}


def draw(samples: pl.DataFrame, settings: Figures) -> style.Drawing:
    """Draw the bias of TTFT (median, 1st to 99th percentile) by true TTFT, and the error of throughput by true rate.

    Args:
        samples: instrument.calibration.SAMPLES.
    """
    style.apply(settings)
    loaded = int(samples["beside"].max() or 0)  # type: ignore[arg-type]
    samples = samples.filter(pl.col("beside") == loaded)  # as while an engine computes; the table has the idle ones, too
    figure, (left, right) = plt.subplots(1, 2, figsize=(settings.text_in, 2.4))
    rows = []
    for shift, (engine, (phase, label)) in enumerate(LOOKS.items()):
        colour, marker = style.BACKEND_COLOURS[phase], style.BACKEND_MARKERS[phase]
        own = samples.filter(pl.col("engine") == engine)
        for panel, by, value, part in (
            (left, "scripted_ttft_ms", "bias_ms", pl.col("tokens") == 2),
            (right, "scripted_tok_s", "error_pct", pl.col("tokens") > 2),
        ):
            points = (
                own.filter(part)
                .group_by(by, maintain_order=False)
                .agg(
                    n=pl.len(),
                    median=pl.col(value).median(),
                    low=pl.col(value).quantile(0.01, "linear"),
                    high=pl.col(value).quantile(0.99, "linear"),
                )
            )
            points = points.sort(by)
            rows += [
                {"engine": engine, "quantity": value, "at": r[by], **{k: r[k] for k in ("n", "median", "low", "high")}}
                for r in points.to_dicts()
            ]
            x = points[by].to_numpy() * (1 + 0.06 * (shift - 1))
            median = points["median"].to_numpy()
            errors = [median - points["low"].to_numpy(), points["high"].to_numpy() - median]
            panel.errorbar(x, median, errors, color=colour, marker=marker, markersize=3.5, linestyle="", elinewidth=0.8, label=label)
    for panel, band in ((left, MEDIAN_BIAS_MS), (right, THROUGHPUT_ERROR_PCT)):
        panel.axhspan(-band, band, color="#dddddd", linewidth=0, zorder=0)
        panel.axhline(0, color="black", linewidth=0.6)
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(plt.FuncFormatter(lambda v, _: f"{v:g}"))
    left.set_xlabel("true time to first token (ms)")
    left.set_ylabel("measured minus true (ms)")
    left.legend(loc="upper left", handlelength=1.2)
    left.set_ylim(top=max(left.get_ylim()[1], 0.3) * 1.35)
    right.set_xlabel("true throughput (tokens/s)")
    right.set_ylabel("error of throughput (%)")
    captions.note(
        figure,
        "Null engines with scripted times. Points: medians; bars: 1st to 99th percentile; grey: target for the median.",
        settings.font_pt,
    )
    n = [samples.filter(part).group_by("engine").len()["len"].min() for part in (pl.col("tokens") == 2, pl.col("tokens") > 2)]
    text = (
        f"Calibration of the harness beside {loaded} busy threads, as an engine's. What it measures against what null engines, which answer at scripted times and report when they did, really "
        f"did: time to first token (left, {n[0]!s} samples an engine) and throughput (right, {n[1]!s}). Grey: the target for the median."
    )
    return style.Drawing(figure, pl.DataFrame(rows, infer_schema_length=None), text)
