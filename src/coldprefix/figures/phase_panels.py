"""One backend in three panels: time to first token, throughput, warm-up; over HTTP a fourth for what streaming adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from coldprefix.analysis.statistics import estimate, medians
from coldprefix.analysis.summary import FEWEST_ARRIVALS
from coldprefix.figures import captions, style
from coldprefix.study import registry
from coldprefix.study.config import Figures

TITLES = {
    "ttft_ms": "time to first token (ms)",
    "overhead_ms": "streaming overhead (ms)",
    "throughput_tok_s": "throughput (tokens/s)",
    "rewarm_ms": "warm-up (ms)",
}
GREY = "#999999"


def draw(data: style.Measured, settings: Figures, phase: str) -> style.Drawing:
    """Draw the panels of ``phase``."""
    style.apply(settings)
    data = data.of(sweep="main", phase=phase)
    lengths = style.lengths_of(data.provenance)
    http = registry.backend_of(phase).interface == "http"
    shown = [metric for metric in TITLES if http or metric != "overhead_ms"]
    figure, axes = plt.subplots(1, len(shown), figsize=(settings.text_in, 2.5))
    panels = dict(zip(shown, axes, strict=True))
    cold = _warmup(panels["rewarm_ms"], data, lengths)
    for metric, panel in panels.items():
        if metric != "rewarm_ms":
            _bars(panel, data, lengths, metric, settings)
        panel.set_ylabel(TITLES[metric])
        panel.set_xticks(range(len(lengths)), [style.configuration_label(c, lengths[c]) for c in lengths], fontsize=settings.font_pt - 2)
        panel.set_xlim(-0.5, len(lengths) - 0.5)
        if metric != "overhead_ms":
            panel.set_ylim(0, panel.get_ylim()[1] * (1.5 if metric == "rewarm_ms" else 1.05))  # room for the legend
    if http:
        _zero(panels["overhead_ms"])
    panels["throughput_tok_s"].set_title("differs by context length, too", fontsize=settings.font_pt - 2, color="#444444")
    figure.suptitle(f"{style.backend_title(phase)} ({phase})", fontsize=settings.font_pt, x=0.01, ha="left")
    handles = [style.patch(state, state) for state in data.states]
    figure.legend(handles=handles, loc="outside upper right", ncols=max(1, len(handles)), handlelength=1.4, borderaxespad=0.1)
    captions.note(
        figure, captions.measured_note(data, bars="{}; bars: " + captions.INTERVAL + "; points: processes' medians."), settings.font_pt
    )
    adds = "what streaming adds to it, of each request, with its sign; " if http else ""
    text = f"{style.backend_title(phase)}: time to first token; {adds}"
    text += f"throughput after the first token, where at least {FEWEST_ARRIVALS} were streamed, so only of a state's own cells: it"
    text += " depends on the length of the context that each"
    text += (
        " token attends to, not only on the cache, and a hit has the longer context; the warm-up of [A, B] in an empty cache, which is one"
    )
    text += " computation in the trials of all states (they are put together), and again after a query. A cold prompt has no warm-up."
    text += f" Bars: mean over engine processes of their medians; error bars: {captions.INTERVAL}; points: the processes' medians."
    rows = data.summary.filter(pl.col("metric").is_in(shown))
    return style.Drawing(figure, pl.concat([rows, cold], how="diagonal_relaxed"), captions.caption(data, text))


def _bar(axes: Axes, x: float, row: Mapping[str, Any], state: str, width: float, trials: pl.DataFrame, metric: str, **look: Any) -> None:
    style.bar(axes, x, row, state, width, **look)
    style.points(axes, x, medians(trials.filter("valid"), metric)["median"].to_list(), width)


def _bars(axes: Axes, data: style.Measured, lengths: Mapping[str, Any], metric: str, settings: Figures) -> None:
    for i, configuration in enumerate(lengths):
        for state, shift, width in style.beside(data.states):
            row = style.find(data.summary, configuration=configuration, state=state, metric=metric)
            if row:
                trials = data.of(configuration=configuration, state=state).trials
                _bar(axes, i + shift, row, state, width, trials, metric)
    if not axes.patches:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", fontsize=settings.font_pt - 2)


def _zero(axes: Axes) -> None:
    """Zero as a line, and room on both sides of it: what streaming adds can be less than nothing."""
    axes.axhline(0, color="black", linewidth=0.6)
    low, high = axes.get_ylim()
    axes.set_ylim(min(1.1 * low, -0.1 * high, -0.05), max(1.1 * high, -0.1 * low, 0.05))


def _warmup(axes: Axes, data: style.Measured, lengths: Mapping[str, Any]) -> pl.DataFrame:
    """The warm-up of [A, B] in an empty cache, and again after the query: what the query destroyed must be paid for.

    Returns:
        A row for each configuration: the warm-up in an empty cache, of the trials of all states. To draw it by state would show an A/A as
        if it were data.
    """
    states = [state for state in data.states if registry.edit(state).warmed]
    rows: list[dict[str, Any]] = []
    for i, configuration in enumerate(lengths):
        trials = data.of(configuration=configuration).trials
        row = style.row_of(estimate(trials.filter("valid"), "warmup_ms"))
        named = {name: trials[name][0] if trials.height else None for name in ("phase", "engine", "interface", "model", "sweep", "variant")}
        rows.append(named | {"configuration": configuration, "state": ", ".join(states), "metric": "warmup_ms", "unit": "ms"} | row)
        for state, shift, width in style.beside(["first", *states]):
            again = style.find(data.summary, metric="rewarm_ms", configuration=configuration, state=state)
            if state == "first" and row["median"] is not None:
                _bar(axes, i + shift, row, states[0], width, trials, "warmup_ms", color=GREY, hatch="")
            elif again:
                _bar(axes, i + shift, again, state, width, trials.filter(pl.col("state") == state), "rewarm_ms")
    handles = [Patch(facecolor=GREY, label="in an empty cache"), *(style.patch(state, f"after a {state}") for state in states)]
    axes.legend(handles=handles, loc="upper left", handlelength=1.4, labelspacing=0.2, borderaxespad=0.1)
    return pl.DataFrame(rows, infer_schema_length=None)
