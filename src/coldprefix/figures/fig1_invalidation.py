"""Figure 1: the cost of prefix invalidation. TTFT by configuration, hit beside miss beside cold, a panel per backend."""

from __future__ import annotations

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.axes import Axes

from coldprefix.analysis.statistics import medians
from coldprefix.analysis.summary import COMPARISONS, COST, COST_PER_TOKEN, EFFECT
from coldprefix.figures import captions, style
from coldprefix.study.config import Figures

LABELLED = "miss"
NAMES = {"hit": "hit", "miss": "miss", "cold": "cold: the hit's prompt, nothing cached"}


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw figure 1 for all phases of the main experiment; the two interfaces of an engine share a row and its axis."""
    style.apply(settings)
    data = data.of(sweep="main")
    rows = data.summary.filter(pl.col("metric").is_in(["ttft_ms", *COMPARISONS]))
    ttft = rows.filter(pl.col("metric") == "ttft_ms")
    phases, states = data.phases, data.states
    lengths = style.lengths_of(data.provenance)
    configurations = [name for name in lengths if name in set(ttft["configuration"])]
    wide = len(phases) > 1
    lines = (len(phases) + 1) // 2
    size = (settings.text_in if wide else settings.column_in, 0.7 + 1.75 * lines if wide else 2.7)
    figure, axes = plt.subplots(lines, 2 if wide else 1, figsize=size, sharey="row", squeeze=False)
    for panel in axes.flat[len(phases) :]:
        panel.set_visible(False)
    for panel, phase in zip(axes.flat, phases, strict=False):
        for i, configuration in enumerate(configurations):
            own = {"phase": phase, "configuration": configuration}
            highest = 0.0
            for state, shift, width in style.beside(states):
                row = style.find(ttft, state=state, **own)
                if row:
                    style.bar(panel, i + shift, row, state, width)
                    trials = data.of(state=state, **own).trials.filter("valid")
                    values = medians(trials, "ttft_ms")["median"].to_list()
                    style.points(panel, i + shift, values, width)
                    highest = max(highest, style.top(row), *values)
            _label(panel, i, highest, rows.filter([pl.col(key) == value for key, value in own.items()]), settings)
        panel.set_title(style.backend_title(phase))
        panel.set_xticks(range(len(configurations)), [style.configuration_label(c, lengths[c]) for c in configurations])
    for line in axes:
        line[0].set_ylabel("time to first token (ms)")
    # The panels of a row share their axis, so the limits come last; room for the numbers above the bars.
    for line, first in zip(axes, range(0, len(phases), 2), strict=True):
        shown = ttft.filter(pl.col("phase").is_in(phases[first : first + 2]))
        line[0].set_ylim(0, 1.32 * max((style.top(row) for row in shown.iter_rows(named=True)), default=1.0))
    handles = [style.patch(state, NAMES.get(state, state)) for state in states]
    place = {"loc": "outside upper right", "ncols": len(states)} if wide else {"loc": "outside upper left", "ncols": 2}
    figure.legend(handles=handles, handlelength=1.4, borderaxespad=0.1, **place)
    gap = " " if wide else "\n"
    bars = "{};" + gap + "bars: " + captions.INTERVAL + ";" + gap + "points: processes' medians."
    captions.note(figure, captions.measured_note(data, wrap=not wide, bars=bars), settings.font_pt)
    text = "Time to first token by configuration: cache hit, cache miss, and cold, which is the prompt of the hit with nothing cached. Above the"
    text += " bars, what a miss costs over a hit of the same engine process: milliseconds, and milliseconds for each token that it computes more;"
    text += f" in % it is {_in_pct(rows)}. Every trial is what the engine reports it reused. Bars: mean over processes of their medians with the"
    text += f" {captions.INTERVAL}; points: the processes' medians."
    return style.Drawing(figure, rows, captions.caption(data, text))


def _label(panel: Axes, at: float, highest: float, rows: pl.DataFrame, settings: Figures) -> None:
    """What a miss costs, over its group: "+123 ms" and "0.55 ms/tok"."""
    cost, per_token = (style.find(rows, metric=metric, state=LABELLED) for metric in (COST, COST_PER_TOKEN))
    if not cost:
        return
    text = f"{style.signed(cost['median'], 0 if abs(cost['median']) >= 10 else 1)} ms"
    if per_token:
        text += f"\n{per_token['median']:#.2g} ms/tok".replace("-", "\u2212").replace(". ", " ")
    panel.annotate(text, (at, highest), (0, 3), textcoords="offset points", ha="center", linespacing=1.0, fontsize=settings.font_pt - 1.5)


def _in_pct(rows: pl.DataFrame) -> str:
    """The range over all backends and configurations."""
    found = rows.filter(pl.col("metric") == EFFECT, pl.col("state") == LABELLED)["median"].drop_nulls().to_list()
    return f"{style.signed(min(found), 0)} % to {style.signed(max(found), 0)} %" if found else "not known"
