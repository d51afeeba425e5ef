"""Figure 1: the cost of prefix invalidation. TTFT by configuration, hit beside miss beside cold, a panel per backend."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.axes import Axes

from coldprefix.analysis.statistics import medians
from coldprefix.analysis.summary import COMPARISONS, COST, COST_PER_TOKEN, EFFECT
from coldprefix.figures import captions, style
from coldprefix.study import registry
from coldprefix.study.config import Figures

TOLD = "miss"  # the state whose cost the caption tells
LABEL = 0.17  # height of a label, as a share of the highest bar of its row
PREFILL: dict[str, Any] = {"marker": "D", "linestyle": "", "markersize": 3.5, "color": "black", "markerfacecolor": "white", "zorder": 5}
NAMES = {"hit": "hit", "miss": "miss", "cold": "cold: the hit's prompt, nothing cached"}


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw figure 1 for all phases of the main experiment; the two interfaces of an engine share a row and its axis."""
    style.apply(settings)
    data = data.of(sweep="main")
    rows = data.summary.filter(pl.col("metric").is_in(["ttft_ms", "query_ms", *COMPARISONS]))
    ttft = rows.filter(pl.col("metric") == "ttft_ms")
    phases, states = data.phases, data.states
    lengths = style.lengths_of(data.provenance)
    configurations = [name for name in lengths if name in set(ttft["configuration"])]
    engines: dict[str, list[str]] = {}
    for phase in phases:
        engines.setdefault(registry.backend_of(phase).engine, []).append(phase)
    wide = max(map(len, engines.values()), default=1) > 1
    size = (settings.text_in if wide else settings.column_in, 0.7 + 1.9 * max(1, len(engines)) + (0.0 if wide else 0.3))
    figure, axes = plt.subplots(max(1, len(engines)), max(map(len, engines.values()), default=1), figsize=size, sharey="row", squeeze=False)
    for line, (engine, of_engine) in zip(axes, engines.items(), strict=False):
        shown = ttft.filter(pl.col("engine") == engine)
        largest = max((style.top(row) for row in shown.iter_rows(named=True)), default=0.0) or 1.0
        ends = [1.05 * largest]
        for panel, phase in zip(line, of_engine, strict=False):
            late = captions.sent_late(data.of(phase=phase).provenance)
            for i, configuration in enumerate(configurations):
                ends.append(_group(panel, i, data.of(phase=phase, configuration=configuration), states, largest, late, settings))
            panel.set_title(style.backend_title(phase))
            panel.set_xlim(-0.62, len(configurations) - 0.38)  # labels are wider than bars
            panel.set_xticks(range(len(configurations)), [style.configuration_label(c, lengths[c]) for c in configurations])
        line[0].set_ylim(0, max(ends))  # the panels of a row share their axis, so the limits come last
        line[0].set_ylabel("time to first token (ms)")
        for panel in line[len(of_engine) :]:
            panel.set_visible(False)
    handles = [style.patch(state, NAMES.get(state, state)) for state in states]
    if captions.sent_late(data.provenance):
        handles.append(plt.Line2D([], [], label="its prefill: one token, not streamed", **PREFILL))
    place = {"loc": "outside upper right", "ncols": len(handles)} if wide else {"loc": "outside upper left", "ncols": 2}
    figure.legend(handles=handles, handlelength=1.4, borderaxespad=0.1, **place)
    bars = "{};" + (" " if wide else "\n") + "bars: " + captions.INTERVAL + ("; " if wide else ";\n") + "points: processes' medians."
    captions.note(figure, captions.measured_note(data, wrap=not wide, bars=bars), settings.font_pt)
    text = (
        "Time to first token by configuration: cache hit, cache miss, and cold, which is the prompt of the hit with nothing cached. Above a"
    )
    text += (
        " bar, what it costs over a hit of the same engine process: milliseconds, and milliseconds for each token that it computes more."
    )
    text += f" A miss, with intervals (those of cold are in the rows): {_costs(data, rows)}. It is the prompt [B, Q],"
    text += " shorter than a hit's. Every trial is what the engine reports it reused. Bars: mean over processes of their medians with the"
    text += f" {captions.INTERVAL}; points: the processes' medians."
    return style.Drawing(figure, rows, captions.caption(data, text))


def _group(panel: Axes, i: int, data: style.Measured, states: list[str], largest: float, late: bool, settings: Figures) -> float:
    """Bars of one backend and configuration with a label above each but the hit's; returns where the highest label ends, in ms.
    ``late``: its streamed first token tells of more than the prefill, which is shown beside it."""
    top = 0.0  # of all that stands left of the label, which reaches over it
    for state, shift, width in style.beside(states):
        row = style.find(data.summary, metric="ttft_ms", state=state)
        if row is None:
            continue
        values = medians(data.of(state=state).trials.filter("valid"), "ttft_ms")["median"].to_list()
        style.bar(panel, i + shift, row, state, width)
        style.points(panel, i + shift, values, width)
        top = max([top, style.top(row), *values])
        prefill = style.find(data.summary, metric="query_ms", state=state) if late else None
        if prefill is not None:
            panel.plot(i + shift, prefill["median"], **PREFILL)
        text = _label(data.summary.filter(pl.col("state") == state))
        if text:
            # The first leans over the hit, whose bar is mostly low, so that it does not lie over the next bar.
            x, side = (i + shift + width / 2, "right") if state == states[1] else (i + shift, "center")
            points = settings.font_pt - 2
            panel.annotate(text, (x, top), (0, 2), textcoords="offset points", ha=side, linespacing=1.0, fontsize=points)
            top += LABEL * largest
    return top + 0.03 * largest


def _label(rows: pl.DataFrame) -> str:
    """What a state costs: "+123 ms" and "0.55 ms/token" or "3.2 µs/token"."""
    cost, per_token = (style.find(rows, metric=metric) for metric in (COST, COST_PER_TOKEN))
    if not cost:
        return ""
    text = f"{style.signed(cost['median'], 0 if abs(cost['median']) >= 10 else 1)} ms"
    return text + (f"\n{style.per_token(per_token['median'])}" if per_token else "")


def _costs(data: style.Measured, rows: pl.DataFrame) -> str:
    """By backend and configuration, milliseconds first."""
    parts = []
    for phase in data.phases:
        own = rows.filter(pl.col("phase") == phase, pl.col("state") == TOLD)
        told = []
        for (configuration,), cell in own.group_by("configuration", maintain_order=True):
            found = [style.find(cell, metric=metric) for metric in (COST, COST_PER_TOKEN, EFFECT)]
            shown = [captions.value(row, digits) for row, digits in zip(found, (1, 3, 0), strict=True) if row]
            told += [f"{configuration} {', '.join(shown)}"] if shown else []
        parts += [f"{style.backend_title(phase)} {', '.join(told)}"] if told else []
    return "; ".join(parts) or "not measured"
