"""Figure 2: TTFT against the tokens recomputed. A line for each engine process; below, how far the medians lie off it."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from coldprefix.analysis.linear import Fit, fit
from coldprefix.analysis.statistics import Estimate, estimate, medians
from coldprefix.figures import captions, style
from coldprefix.study import registry
from coldprefix.study.config import Figures

TOKENS = {"miss": "stream_evaluated_tokens", "hit": "stream_cached_tokens"}


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw the sweep `scaling`: a column per backend with the processes' medians, the mean line and its band, and the residuals by length."""
    style.apply(settings)
    data = data.of(sweep="scaling")
    phases = data.phases
    wide = len(phases) > 1
    size = (settings.text_in if wide else settings.column_in, 3.6)
    figure, axes = plt.subplots(2, len(phases), figsize=size, sharex=True, squeeze=False, height_ratios=[2.2, 1])
    rows: list[dict[str, Any]] = []
    found = []
    for column, phase in enumerate(phases):
        top, bottom = axes[0][column], axes[1][column]
        own = data.of(phase=phase)
        valid = own.trials.filter("valid")
        misses, hits = (valid.filter(pl.col("state") == state) for state in ("miss", "hit"))
        fitted = fit(misses)
        rows += [*_values(phase, misses, "miss"), *_values(phase, hits, "hit"), *_fit_rows(phase, fitted)]
        top.set_title(style.backend_title(phase))
        _limit(own, top, bottom, settings, label=column == 0 or _engine(phase) != _engine(phases[column - 1]))
        look = {"color": style.BACKEND_COLOURS[phase], "marker": style.BACKEND_MARKERS[phase], "linestyle": ""}
        _medians(top, misses, "miss", markersize=2.8, alpha=0.8, markeredgewidth=0, **look)
        _medians(top, hits, "hit", markersize=2.6, markerfacecolor="white", markeredgewidth=0.5, **look)
        if fitted is not None:
            _line(top, fitted, settings)
            _residuals(bottom, fitted, look)
            found.append(f"{style.backend_title(phase)} {_sentence(fitted)}")
    _scales(axes, phases)
    for panel in axes[1]:
        panel.set_xlabel("tokens")
        panel.set_xlim(0, 1040)
        panel.set_xticks([0, 512, 1024])
    axes[0][0].set_ylabel("time to first token (ms)")
    axes[1][0].set_ylabel("off the\nline (%)")
    grey: dict[str, Any] = {"color": "#555555", "marker": "o", "markersize": 3.2, "linestyle": ""}
    handles = [
        Line2D([], [], label="miss, by tokens recomputed", **grey),
        Line2D([], [], markerfacecolor="white", markeredgewidth=0.6, label="hit, by tokens cached", **grey),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2 if wide else 1, handlelength=1.0, borderaxespad=0.1)
    bars = (
        "{};"
        + (" " if wide else "\n")
        + "points: processes' medians; line: mean of the processes' lines;\nband and bars: "
        + captions.INTERVAL
        + "."
    )
    captions.note(figure, captions.measured_note(data, wrap=not wide, bars=bars), settings.font_pt)
    text = "Time to first token against the tokens recomputed, from a few dozen to the model's limit; hollow: hits, against the tokens that were"
    text += " cached. All lengths were measured in each engine process in random order. A line is fitted to each process's medians (least squares"
    text += (
        f" of relative errors): {'; '.join(found) or 'too few lengths for a line'}. The bend says how far the middle of the range lies from"
    )
    text += (
        " the chord between its ends; negative: each token costs more the longer the prompt is. Below: how far the medians of a length lie"
    )
    text += f" from their process's line. Band, bars and brackets: {captions.INTERVAL}. Dotted: n_ubatch, beyond which llama.cpp computes a"
    text += " prompt in two graphs."
    return style.Drawing(figure, pl.DataFrame(rows, infer_schema_length=None), captions.caption(data, text))


def _engine(phase: str) -> str:
    return registry.phases()[phase].engine


def _scales(axes: Any, phases: list[str]) -> None:
    """The interfaces of an engine get the same time axis, the engines, which differ several times over, their own; all backends get the same
    axis of residuals. Above the points there is room for the fit's numbers."""
    for panel, phase in zip(axes[0], phases, strict=True):
        highest = max(other.dataLim.y1 for other, name in zip(axes[0], phases, strict=True) if _engine(name) == _engine(phase))
        panel.set_ylim(0, 1.5 * highest if highest > 0 else 1.0)
    farthest = max([*(abs(end) for panel in axes[1] for end in (panel.dataLim.y0, panel.dataLim.y1) if np.isfinite(end)), 2.0])
    for i, panel in enumerate(axes[1]):
        panel.set_ylim(-1.15 * farthest, 1.15 * farthest)
        panel.axhline(0, color="black", linewidth=0.6, zorder=0)
        panel.tick_params(labelleft=i == 0)


def _values(phase: str, trials: pl.DataFrame, state: str) -> list[dict[str, Any]]:
    """Rows of the table: TTFT by length."""
    found = []
    for (tokens,), own in trials.drop_nulls(TOKENS[state]).sort(TOKENS[state]).group_by(TOKENS[state], maintain_order=True):
        value = estimate(own, "ttft_ms")
        found.append({"phase": phase, "state": state, "quantity": "ttft", "unit": "ms", "tokens": tokens} | style.row_of(value))
    return found


def _fit_rows(phase: str, fitted: Fit | None) -> list[dict[str, Any]]:
    """Rows of the table: the line, and the residual of each length."""
    if fitted is None:
        return []
    named: list[tuple[str, str, int | None, Estimate]] = [
        ("slope", "ms/token", None, fitted.slope),
        ("intercept", "ms", None, fitted.intercept),
        ("bend", "%", None, fitted.bend_pct),
        *(("off the line", "%", tokens, value) for tokens, value in fitted.deviations_pct.items()),
    ]
    return [
        {"phase": phase, "state": "miss", "quantity": name, "unit": unit, "tokens": tokens} | style.row_of(value)
        for name, unit, tokens, value in named
    ]


def _medians(panel: Axes, trials: pl.DataFrame, state: str, **look: Any) -> None:
    known = medians(trials.drop_nulls(TOKENS[state]), "ttft_ms", ["engine_process", TOKENS[state]])
    panel.plot(known[TOKENS[state]], known["median"], **look)


def _line(panel: Axes, fitted: Fit, settings: Figures) -> None:
    x = np.linspace(0.0, max(fitted.deviations_pct), 50)
    panel.plot(x, fitted.at(x), color="black", linewidth=0.8)
    band = fitted.band(x)
    if band is not None:
        panel.fill_between(x, *band, color="black", alpha=0.15, linewidth=0)
    panel.text(0.03, 0.99, _words(fitted), transform=panel.transAxes, va="top", fontsize=settings.font_pt - 2, linespacing=1.15)


def _residuals(panel: Axes, fitted: Fit, look: dict[str, Any]) -> None:
    for tokens, value in fitted.deviations_pct.items():
        if value.value is None:
            continue
        panel.errorbar(tokens, value.value, style.errors(style.row_of(value)), markersize=2.8, elinewidth=0.7, capthick=0.7, **look)


def _told(value: Estimate, digits: int) -> str:
    """ "0.312 [0.300, 0.324]"."""
    shown = "\u2013" if value.value is None else _fixed(value.value, digits)
    if value.low is not None and value.high is not None:
        shown += f" [{_fixed(value.low, digits)}, {_fixed(value.high, digits)}]"
    return shown.replace("-", "\u2212")


def _fixed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero


def _words(fitted: Fit) -> str:
    return f"{_told(fitted.slope, 3)}\nms/token\nbend {_told(fitted.bend_pct, 1)} %"


def _sentence(fitted: Fit) -> str:
    return f"{_told(fitted.slope, 4)} ms/token, intercept {_told(fitted.intercept, 1)} ms, bend {_told(fitted.bend_pct, 1)} %"


def _limit(data: style.Measured, top: Axes, bottom: Axes, settings: Figures, label: bool) -> None:
    """Where the engine itself cuts a prompt: n_ubatch of llama.cpp."""
    ubatch = data.provenance[0]["in_force"].get("ubatch_tokens") if data.provenance else None
    if ubatch is None:
        return
    for panel, height in ((top, 0.66), (bottom, 1.0)):  # above it stand the fit's numbers
        panel.axvline(ubatch, ymax=height, color="#777777", linewidth=0.7, linestyle=":")
    if label:
        size = settings.font_pt - 2
        bottom.annotate("n_ubatch", (ubatch, 0.06), (2, 0), bottom.get_xaxis_transform(), "offset points", fontsize=size, color="#555555")
