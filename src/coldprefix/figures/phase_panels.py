"""One backend in three panels: time to first token, throughput, warm-up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from coldprefix.figures import style
from coldprefix.study import registry
from coldprefix.study.config import Figures


def draw(data: style.Measured, settings: Figures, phase: str) -> style.Drawing:
    """Draw the panels of ``phase``."""
    style.apply(settings)
    data = data.of(sweep="main", phase=phase)
    summary, provenance = data.summary, data.provenance
    lengths = {r["job"]["configuration"]: r["job"]["lengths"] for r in provenance}
    figure, axes = plt.subplots(1, 3, figsize=(settings.text_in, 2.4))
    http = registry.phases()[phase].interface == "http"
    shown = ["ttft_ms", "throughput_tok_s", "warmup_ms", "rewarm_ms"] + (["ttft_non_streaming_ms", "overhead_ms"] if http else [])
    rows = summary.filter(pl.col("metric").is_in(shown))
    _ttft(axes[0], rows, lengths, http)
    _bars(axes[1], rows, lengths, "throughput_tok_s")
    axes[1].set_ylabel("throughput (tokens/s)")
    _warmup(axes[2], rows, lengths)
    for panel in axes:
        panel.set_xticks(range(len(lengths)), [style.configuration_label(c, lengths[c]) for c in lengths])
        panel.set_ylim(bottom=0)
        panel.set_ylim(top=panel.get_ylim()[1] * (1.5 if http and panel is axes[0] else 1.3))  # room for the legend
    figure.suptitle(f"{style.backend_title(phase)} ({phase})", fontsize=settings.font_pt)
    style.note(figure, style.measured_note(data), settings.font_pt)
    text = f"{style.backend_title(phase)}: time to first token{' (stacked: one answer, and what streaming adds)' if http else ''}, throughput after"
    text += " the first token, and the warm-up of [A, B] in a cold cache and again after a query. Medians with 95 % bootstrap intervals;"
    return style.Drawing(figure, rows, style.caption(data, text))


def _bars(axes: Axes, rows: pl.DataFrame, lengths: Mapping[str, Any], metric: str) -> None:
    states = style.states_in(rows)
    for i, configuration in enumerate(lengths):
        for state, shift, width in style.beside(states):
            row = style.find(rows, configuration=configuration, state=state, metric=metric)
            if row:
                style.bar(axes, i + shift, row, state, width)
    axes.legend(handles=[style.patch(state, state) for state in states], loc="upper left", ncols=2, handlelength=1.4)


def _ttft(axes: Axes, rows: pl.DataFrame, lengths: Mapping[str, Any], http: bool) -> None:
    """TTFT; over HTTP stacked: the time of an answer in one piece, and what streaming adds, as a number where it is thin."""
    axes.set_ylabel("time to first token (ms)")
    if not http:
        _bars(axes, rows, lengths, "ttft_ms")
        return
    states = style.states_in(rows)
    handles = [*(style.patch(state, state) for state in states), Patch(facecolor="black", label="streaming overhead (ms)")]
    for i, configuration in enumerate(lengths):
        for state, shift, width in style.beside(states):
            at = {"configuration": configuration, "state": state}
            total = style.find(rows, metric="ttft_ms", **at)
            plain = style.find(rows, metric="ttft_non_streaming_ms", **at)
            overhead = style.find(rows, metric="overhead_ms", **at)
            if not (total and plain and overhead):
                continue
            x = i + shift
            style.bar(axes, x, plain, state, width)
            if overhead["median"] > 0:
                axes.bar(x, overhead["median"], width, bottom=plain["median"], color="black", linewidth=0)
            top = max(plain["ci_high"] or 0, plain["median"] + max(0.0, overhead["median"]))
            size = plt.rcParams["legend.fontsize"] - 1
            axes.annotate(style.signed(overhead["median"], 1), (x, top), (0, 2), textcoords="offset points", ha="center", fontsize=size)
    axes.legend(handles=handles, loc="upper left", handlelength=1.4, labelspacing=0.2)


def _warmup(axes: Axes, rows: pl.DataFrame, lengths: Mapping[str, Any]) -> None:
    """The warm-up of [A, B] in an empty cache, and again after the query: what the query destroyed must be paid for."""
    axes.set_ylabel("warm-up (ms)")
    states = style.states_in(rows)
    for i, configuration in enumerate(lengths):
        for state, shift, width in style.beside(states):
            cold = style.find(rows, metric="warmup_ms", configuration=configuration, state=state)
            again = style.find(rows, metric="rewarm_ms", configuration=configuration, state=state)
            if cold:
                style.bar(axes, i + shift - width / 4, cold, state, width / 2, color=style.pale(style.COLOURS[state]))
            if again:
                style.bar(axes, i + shift + width / 4, again, state, width / 2)
    handles = [style.patch(state, f"cold ({state})", facecolor=style.pale(style.COLOURS[state])) for state in states]
    handles += [style.patch(state, f"after a {state}") for state in states]
    axes.legend(handles=handles, loc="upper left", ncols=2, handlelength=1.4, columnspacing=1.0, labelspacing=0.2)
