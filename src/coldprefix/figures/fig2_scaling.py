"""Figure 2: TTFT against the tokens recomputed: a line for each engine process, what it leaves over, and hits by the tokens reused."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb

from coldprefix.analysis.linear import Fit, equally_computed, fit
from coldprefix.analysis.statistics import Estimate, estimate, medians
from coldprefix.figures import captions, style
from coldprefix.study import registry
from coldprefix.study.config import Figures

FROM_TOKENS = 100  # below, the fixed cost of a request is most of the time; C10 is decided from there on, too
TOKENS = {"miss": "stream_evaluated_tokens", "hit": "stream_cached_tokens"}


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw the sweep `scaling`, a column per backend: misses and their lines, what the lines leave over, and hits by cached tokens."""
    style.apply(settings)
    data = data.of(sweep="scaling")
    phases = data.phases
    wide = len(phases) > 1
    size = (settings.text_in if wide else settings.column_in, 4.7)
    figure, axes = plt.subplots(3, len(phases), figsize=size, squeeze=False, height_ratios=[2.2, 1, 1])
    rows: list[dict[str, Any]] = []
    found = []
    for (top, middle, bottom), phase, column in zip(axes.T, phases, range(len(phases)), strict=True):
        own = data.of(phase=phase)
        valid = own.trials.filter("valid")
        misses, hits = (valid.filter(pl.col("state") == state) for state in ("miss", "hit"))
        same = equally_computed(hits)
        fitted, reused = fit(misses, from_tokens=FROM_TOKENS), fit(same, tokens=TOKENS["hit"])
        rows += [*_values(phase, misses, "miss"), *_values(phase, hits, "hit")]
        rows += [*_fit_rows(phase, "miss", fitted), *_fit_rows(phase, "hit", reused)]
        top.set_title(style.backend_title(phase))
        _limit(own, top, middle, settings, label=column == 0 or _engine(phase) != _engine(phases[column - 1]))
        _processes(top, misses, "miss", phase, fitted)
        _processes(bottom, same, "hit", phase, reused)
        computed = f"\n({same['stream_evaluated_tokens'][0]} computed)" if same.height else "\n(not measured)"
        bottom.set_xlabel(f"tokens reused{computed}")
        if fitted is not None:
            _text(top, f"{_told(fitted.slope, 3)}\nms/token\nbend {_told(fitted.bend_pct, 1)} %", settings)
            _residuals(middle, fitted, phase)
            found.append(f"{style.backend_title(phase)} {_sentence(fitted)}")
        if reused is not None:
            _text(bottom, f"{_told(_in_us(reused.slope), 1)} \u00b5s/token", settings)
            found += [f"{found.pop()}; hits {_told(_in_us(reused.slope), 1)} \u00b5s per reused token"] if fitted else []
    _scales(axes, phases)
    largest = max([row["tokens"] for row in rows if row["tokens"] is not None], default=1024)
    step = 512 * 2 ** max(0, round(np.log2(largest / 1024)))
    for panel in axes.flat:
        panel.set_xlim(-0.04 * largest, 1.12 * largest)
        panel.set_xticks(range(0, int(1.12 * largest), step))
    for top, middle, _ in axes.T:
        top.tick_params(labelbottom=False)
        middle.set_xlabel("tokens recomputed")
    for panel, label in zip(axes[:, 0], ("TTFT of a miss (ms)", "off the\nline (%)", "TTFT of a hit\n(ms)"), strict=True):
        panel.set_ylabel(label)
    gap = " " if wide else "\n"
    bars = f"{{}};{gap}a shade for each process: medians{', ' if wide else ',' + gap}and its line; black: their mean;\nband and bars: {captions.INTERVAL}."
    captions.note(figure, captions.measured_note(data, wrap=not wide, bars=bars), settings.font_pt)
    text = (
        "Time to first token against tokens. Above: misses, with nothing cached, by the tokens recomputed, from a few dozen to the model's"
    )
    text += " limit. All lengths were measured in each engine process in random order, and each has its own line (least squares of relative"
    text += f" errors, from {FROM_TOKENS} tokens on). Middle: how far a length's medians lie from their process's line. Below, hollow: hits of the"
    text += (
        " same processes by the tokens reused, those that compute as many tokens as most of their backend (a block pool reuses whole blocks"
    )
    text += (
        " only, so its hits differ in what they compute; all are in the rows). The bend says how far the middle of the range lies from the"
    )
    text += " chord between its ends; negative: each token costs more the longer the prompt is."
    text += (
        f" {'. '.join(found) or 'Too few lengths for a line'}. Band, bars and brackets: {captions.INTERVAL}. Dotted: n_ubatch, beyond which"
    )
    text += " llama.cpp computes a prompt in two graphs."
    return style.Drawing(figure, pl.DataFrame(rows, infer_schema_length=None), captions.caption(data, text))


def _engine(phase: str) -> str:
    return registry.backend_of(phase).engine


def _scales(axes: Any, phases: list[str]) -> None:
    """The interfaces of an engine get the same time axis, the engines, which differ several times over, their own; all backends get the same
    axis of residuals. Above the points there is room for the fit's numbers."""
    for line, room in ((axes[0], 1.5), (axes[2], 1.6)):
        for panel, phase in zip(line, phases, strict=True):
            highest = max(other.dataLim.y1 for other, name in zip(line, phases, strict=True) if _engine(name) == _engine(phase))
            panel.set_ylim(0, room * highest if 0 < highest < np.inf else 1.0)
    farthest = max([*(abs(end) for panel in axes[1] for end in (panel.dataLim.y0, panel.dataLim.y1) if np.isfinite(end)), 2.0])
    for i, panel in enumerate(axes[1]):
        panel.set_ylim(-1.15 * farthest, 1.15 * farthest)
        panel.axhline(0, color="black", linewidth=0.6, zorder=0)
        panel.tick_params(labelleft=i == 0)


def _shades(colour: str, n: int) -> list[str]:
    """``n`` shades of a backend's colour, the palest first."""
    return [to_hex([1 - (1 - part) * share for part in to_rgb(colour)]) for share in np.linspace(0.45, 1, n)]


def _values(phase: str, trials: pl.DataFrame, state: str) -> list[dict[str, Any]]:
    """Rows of the table: TTFT by length."""
    found = []
    for (tokens,), own in trials.drop_nulls(TOKENS[state]).sort(TOKENS[state]).group_by(TOKENS[state], maintain_order=True):
        value = estimate(own, "ttft_ms")
        named = {"phase": phase, "state": state, "quantity": "ttft", "unit": "ms", "tokens": tokens}
        found.append(named | {"computed_tokens": own["stream_evaluated_tokens"].median()} | style.row_of(value))
    return found


def _fit_rows(phase: str, state: str, fitted: Fit | None) -> list[dict[str, Any]]:
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
        {"phase": phase, "state": state, "quantity": name, "unit": unit, "tokens": tokens} | style.row_of(value)
        for name, unit, tokens, value in named
    ]


def _processes(panel: Axes, trials: pl.DataFrame, state: str, phase: str, fitted: Fit | None) -> None:
    """The medians of each process and its line in a shade of its own, the mean line and its band."""
    known = medians(trials.drop_nulls(TOKENS[state]), "ttft_ms", ["engine_process", TOKENS[state]])
    parts = [own for _, own in known.group_by("engine_process", maintain_order=True)]
    marker = style.BACKEND_MARKERS[phase]
    for colour, own in zip(_shades(style.BACKEND_COLOURS[phase], len(parts)), parts, strict=True):
        face = "white" if state == "hit" else colour
        panel.plot(own[TOKENS[state]], own["median"], marker, color=colour, markerfacecolor=face, markersize=2.8, markeredgewidth=0.6)
    if fitted is not None:
        first = 0 if state == "miss" else min(fitted.deviations_pct)
        _lines(panel, fitted, np.linspace(first, max(fitted.deviations_pct), 50), phase)


def _lines(panel: Axes, fitted: Fit, x: Any, phase: str) -> None:
    lines = fitted.coefficients
    for colour, (intercept, slope) in zip(_shades(style.BACKEND_COLOURS[phase], len(lines)), lines, strict=True):
        panel.plot(x, intercept + slope * x, color=colour, linewidth=0.5)
    panel.plot(x, fitted.at(x), color="black", linewidth=0.8)
    band = fitted.band(x)
    if band is not None:
        panel.fill_between(x, *band, color="black", alpha=0.15, linewidth=0)


def _text(panel: Axes, words: str, settings: Figures) -> None:
    panel.text(0.03, 0.99, words, transform=panel.transAxes, va="top", fontsize=settings.font_pt - 2, linespacing=1.15)


def _residuals(panel: Axes, fitted: Fit, phase: str) -> None:
    look: dict[str, Any] = {"color": style.BACKEND_COLOURS[phase], "marker": style.BACKEND_MARKERS[phase], "linestyle": ""}
    for tokens, value in fitted.deviations_pct.items():
        assert value.value is not None  # a length without a value has no deviation
        panel.errorbar(tokens, value.value, style.errors(style.row_of(value)), markersize=2.8, elinewidth=0.7, capthick=0.7, **look)


def _told(value: Estimate, digits: int) -> str:
    """ "0.312 [0.300, 0.324]"."""
    shown = "\u2013" if value.value is None else _fixed(value.value, digits)
    if value.low is not None and value.high is not None:
        shown += f" [{_fixed(value.low, digits)}, {_fixed(value.high, digits)}]"
    return shown.replace("-", "\u2212")


def _fixed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero


def _in_us(slope: Estimate) -> Estimate:
    """A slope in ms per token in microseconds."""
    value, low, high = (None if v is None else 1e3 * v for v in (slope.value, slope.low, slope.high))
    return Estimate(slope.n, slope.processes, value, slope.sd, low, high)


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
