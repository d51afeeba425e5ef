"""One backend in three panels: time to first token, throughput, warm-up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from coldprefix.figures import captions, style
from coldprefix.study import registry
from coldprefix.study.config import Figures


def draw(data: style.Measured, settings: Figures, phase: str) -> style.Drawing:
    """Draw the panels of ``phase``."""
    style.apply(settings)
    data = data.of(sweep="main", phase=phase)
    lengths = style.lengths_of(data.provenance)
    figure, axes = plt.subplots(1, 3, figsize=(settings.text_in, 2.4))
    http = registry.phases()[phase].interface == "http"
    shown = ["ttft_ms", "throughput_tok_s", "warmup_ms", "rewarm_ms"] + (["ttft_non_streaming_ms", "overhead_ms"] if http else [])
    rows = data.summary.filter(pl.col("metric").is_in(shown))
    _ttft(axes[0], rows, lengths, http)
    _bars(axes[1], rows, lengths, "throughput_tok_s")
    axes[1].set_ylabel("throughput (tokens/s)")
    _warmup(axes[2], rows, lengths)
    for panel in axes:
        panel.set_xticks(range(len(lengths)), [style.configuration_label(c, lengths[c]) for c in lengths])
        panel.set_ylim(bottom=0)
        panel.set_ylim(top=panel.get_ylim()[1] * (1.75 if http and panel is axes[0] else 1.3))  # room for the legend
    figure.suptitle(f"{style.backend_title(phase)} ({phase})", fontsize=settings.font_pt)
    captions.note(figure, captions.measured_note(data), settings.font_pt)
    text = f"{style.backend_title(phase)}. Left: time to first token"
    text += (
        f"{', and what streaming adds to an answer in one piece, with its sign: filled black above, hollow below' if http else ''}. Middle:"
    )
    text += " throughput after the first token; it depends on the length of the context that each token attends to, not only on the cache, and a"
    text += " hit has the longer context. Right: the warm-up of [A, B] in an empty cache and again after a query; cold has none."
    text += f" Bars: mean over engine processes of their medians; error bars: {captions.INTERVAL}."
    return style.Drawing(figure, rows, captions.caption(data, text))


def _states(rows: pl.DataFrame, metric: str) -> list[str]:
    """States that have this metric: cold has no warm-up, and partners stream too few tokens for a throughput."""
    return style.states_in(rows.filter(pl.col("metric") == metric, pl.col("median").is_not_null()))


def _bars(axes: Axes, rows: pl.DataFrame, lengths: Mapping[str, Any], metric: str) -> None:
    states = _states(rows, metric)
    for i, configuration in enumerate(lengths):
        for state, shift, width in style.beside(states):
            row = style.find(rows, configuration=configuration, state=state, metric=metric)
            if row:
                style.bar(axes, i + shift, row, state, width)
    axes.legend(handles=[style.patch(state, state) for state in states], loc="upper left", ncols=3, handlelength=1.4, columnspacing=1.0)


def _ttft(axes: Axes, rows: pl.DataFrame, lengths: Mapping[str, Any], http: bool) -> None:
    """TTFT; over HTTP stacked: the time of an answer in one piece, and what streaming adds, as a number where it is thin."""
    axes.set_ylabel("time to first token (ms)")
    if not http:
        _bars(axes, rows, lengths, "ttft_ms")
        return
    states = _states(rows, "ttft_ms")
    adds = [Patch(facecolor="black", label="streaming adds (ms)"), Patch(facecolor="none", edgecolor="black", label="streaming saves")]
    for i, configuration in enumerate(lengths):
        for state, shift, width in style.beside(states):
            plain, overhead = (
                style.find(rows, metric=metric, configuration=configuration, state=state)
                for metric in ("ttft_non_streaming_ms", "overhead_ms")
            )
            if not (plain and overhead):
                continue
            x, added = i + shift, overhead["median"]
            style.bar(axes, x, plain, state, width)
            look: dict[str, Any] = (
                {"color": "black", "linewidth": 0} if added > 0 else {"color": "none", "edgecolor": "black", "linewidth": 0.5}
            )
            axes.bar(x, added, width, bottom=plain["median"], **look)
            top = max(style.top(plain), plain["median"] + added)
            size = plt.rcParams["legend.fontsize"] - 1.5
            axes.annotate(style.signed(added, 1), (x, top), (0, 2), textcoords="offset points", ha="center", fontsize=size, rotation=90)
    handles = [*(style.patch(state, state) for state in states), *adds]
    axes.legend(handles=handles, loc="upper left", ncols=2, handlelength=1.4, labelspacing=0.2, columnspacing=1.0)


def _warmup(axes: Axes, rows: pl.DataFrame, lengths: Mapping[str, Any]) -> None:
    """The warm-up of [A, B] in an empty cache, and again after the query: what the query destroyed must be paid for."""
    axes.set_ylabel("warm-up (ms)")
    states = _states(rows, "warmup_ms")
    for i, configuration in enumerate(lengths):
        for state, shift, width in style.beside(states):
            cold = style.find(rows, metric="warmup_ms", configuration=configuration, state=state)
            again = style.find(rows, metric="rewarm_ms", configuration=configuration, state=state)
            if cold:
                style.bar(axes, i + shift - width / 4, cold, state, width / 2, color=style.pale(style.COLOURS[state]))
            if again:
                style.bar(axes, i + shift + width / 4, again, state, width / 2)
    handles = [style.patch(state, f"first ({state})", facecolor=style.pale(style.COLOURS[state])) for state in states]
    handles += [style.patch(state, f"after a {state}") for state in states]
    axes.legend(handles=handles, loc="upper left", ncols=2, handlelength=1.4, columnspacing=1.0, labelspacing=0.2)
