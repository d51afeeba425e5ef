"""Figure 2: TTFT against the tokens recomputed. Every trial is a point; below, how far the medians lie off the line."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes

from coldprefix.analysis.statistics import Line, line
from coldprefix.figures import style
from coldprefix.study import registry
from coldprefix.study.config import Figures


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw the sweep `scaling`: a column per backend, points, line with its 95 % band, and residuals of the medians."""
    style.apply(settings)
    data = data.of(sweep="scaling")
    phases = data.phases
    wide = len(phases) > 1
    size = (settings.text_in if wide else settings.column_in, 3.3)
    figure, axes = plt.subplots(2, len(phases), figsize=size, sharex=True, squeeze=False, height_ratios=[2.2, 1])
    found, worst = [], []
    rows = data.trials.filter(pl.col("ttft_ms").is_not_null()).select(
        *("phase", "variant", "configuration", "state", "replicate", "trial", "valid", "burn_in", "rejection"),
        *("stream_cached_tokens", "stream_evaluated_tokens", "ttft_ms"),
    )
    for column, phase in enumerate(phases):
        valid = rows.filter(pl.col("valid") & (pl.col("phase") == phase))
        x, y = (valid[name].to_numpy().astype(np.float64) for name in ("stream_evaluated_tokens", "ttft_ms"))
        fitted = line(x, y)
        top, bottom = axes[0][column], axes[1][column]
        colour = style.BACKEND_COLOURS[phase]
        top.plot(x, y, style.BACKEND_MARKERS[phase], color=colour, markersize=2.5, alpha=0.7, markeredgewidth=0)
        top.set_title(style.backend_title(phase))
        _limit(data.of(phase=phase), top, bottom, settings, label=column == 0 or _engine(phase) != _engine(phases[column - 1]))
        if len(y):  # a scale of its own: the engines differ several times over; room for the fit's numbers
            top.set_ylim(0, 1.4 * float(y.max()))
        if column:
            bottom.tick_params(labelleft=False)
        bottom.set_ylim(-62, 62)
        if fitted is None:
            continue
        ends = np.linspace(0.0, float(x.max()), 50)
        top.plot(ends, fitted.at(ends), color="black", linewidth=0.8)
        top.fill_between(ends, *fitted.band(ends), color="black", alpha=0.15, linewidth=0)
        top.text(0.04, 0.97, _words(fitted), transform=top.transAxes, va="top", fontsize=settings.font_pt - 1.5)
        medians = valid.group_by("stream_evaluated_tokens").agg(pl.col("ttft_ms").median()).sort("stream_evaluated_tokens")
        lengths, values = (medians[name].to_numpy().astype(np.float64) for name in medians.columns)
        off = 100 * (values / fitted.at(lengths) - 1)
        shown = np.abs(off) <= 60
        bottom.plot(lengths[shown], off[shown], style.BACKEND_MARKERS[phase], color=colour, markersize=3.5, markeredgewidth=0)
        bottom.axhline(0, color="black", linewidth=0.6)
        for at, value in zip(lengths[~shown], off[~shown], strict=True):
            edge = 55 if value > 0 else -55
            text = style.signed(value, 0) + " %"
            bottom.annotate(text, (at, edge), (2, 0), textcoords="offset points", va="center", fontsize=settings.font_pt - 2)
        found.append(f"{style.backend_title(phase)} {_sentence(fitted)}")
        long = lengths >= 100
        if long.any():
            at = int(np.argmax(np.abs(off) * long))
            worst.append(f"{style.backend_title(phase)} {style.signed(off[at], 0)} % at {lengths[at]:.0f}")
    for panel in axes[1]:
        panel.set_xlabel("tokens recomputed")
        panel.set_xlim(0, 1040)
        panel.set_xticks([0, 512, 1024])
    axes[0][0].set_ylabel("time to first token (ms)")
    axes[1][0].set_ylabel("median off\nthe line (%)")
    bars = "{}; every trial is a point; line: least squares, band: 95 % bootstrap interval."
    style.note(figure, style.measured_note(data, wrap=not wide, bars=bars), settings.font_pt)
    text = f"Time to first token against the tokens recomputed, from a few dozen to the model's limit. Least squares: {'; '.join(found)}."
    text += f" Largest distance of a median from its line at 100 tokens or more: {'; '.join(worst)}. Dotted: n_ubatch, beyond which"
    text += " llama.cpp computes a prompt in two graphs."
    return style.Drawing(figure, rows, style.caption(data, text))


def _engine(phase: str) -> str:
    return registry.phases()[phase].engine


def _words(fitted: Line) -> str:
    low, high = fitted.slope[1:]
    return (
        f"{fitted.slope[0]:.3f} ms/token\n[{low:.3f}, {high:.3f}]\nintercept {fitted.intercept[0]:.1f} ms\n".replace("-", "\u2212")
        + f"R² = {fitted.r2[0]:.3f}"
    )


def _sentence(fitted: Line) -> str:
    slope, intercept, r2 = (f"{v:.3g} [{low:.3g}, {high:.3g}]" for v, low, high in (fitted.slope, fitted.intercept, fitted.r2))
    return f"{slope} ms/token, intercept {intercept} ms, R² {r2}"


def _limit(data: style.Measured, top: Axes, bottom: Axes, settings: Figures, label: bool) -> None:
    """Where the engine itself cuts a prompt: n_ubatch of llama.cpp."""
    ubatch = data.provenance[0]["in_force"].get("ubatch_tokens") if data.provenance else None
    if ubatch is None:
        return
    for panel, height in ((top, 0.68), (bottom, 1.0)):  # above it stand the fit's numbers
        panel.axvline(ubatch, ymax=height, color="#777777", linewidth=0.7, linestyle=":")
    if label:
        size = settings.font_pt - 2
        top.annotate("n_ubatch", (ubatch, 0), (2, 3), textcoords="offset points", fontsize=size, color="#555555")
