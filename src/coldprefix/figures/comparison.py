"""Two runs side by side: the ratio of TTFT per cell, with its interval, on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from coldprefix.figures import captions, style
from coldprefix.study import registry
from coldprefix.study.config import Figures


def draw(comparison: pl.DataFrame, names: Sequence[str], differing: Sequence[str], settings: Figures) -> style.Drawing:
    """Draw a panel per backend, a line per cell that both runs have: other / one. All panels share their rows, hit above miss."""
    style.apply(settings)
    rows = comparison.filter((pl.col("metric") == "ttft_ms") & pl.col("ratio").is_not_null())
    found = set(rows["phase"])
    phases = [phase for phase in style.BACKEND_COLOURS if phase in found] + sorted(found - set(style.BACKEND_COLOURS))
    lines = rows.select("variant", "configuration").unique().sort("variant", "configuration", descending=True).rows()
    shifts = {state: shift for state, shift, _ in style.beside(style.states_in(rows))}
    height = 1.1 + 0.18 * max(1, len(lines))
    figure, axes = plt.subplots(1, max(1, len(phases)), figsize=(settings.text_in, height), squeeze=False, sharex=True, sharey=True)
    labels = [configuration if variant == "main" else f"{variant} {configuration}" for variant, configuration in lines]
    axes[0][0].set_yticks(range(len(lines)), labels, fontsize=settings.font_pt - 2)
    axes[0][0].set_ylim(-0.6, max(1, len(lines)) - 0.4)
    for panel, phase in zip(axes[0], phases, strict=False):
        for row in rows.filter(pl.col("phase") == phase).iter_rows(named=True):
            low, high = (row["ratio"] if row[end] is None else row[end] for end in ("ratio_low", "ratio_high"))
            marker, y = style.state_marker(row["state"]), lines.index((row["variant"], row["configuration"])) - shifts[row["state"]]
            panel.plot([low, high], [y, y], color=style.state_colour(row["state"]), linewidth=1)
            panel.plot(row["ratio"], y, marker, color=style.state_colour(row["state"]), markersize=3)
        panel.axvline(1, color="black", linewidth=0.6)
        panel.set_title(style.backend_title(phase))
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
    if phases:
        ends = [value for row in rows.iter_rows(named=True) for value in (row["ratio"], row["ratio_low"], row["ratio_high"]) if value]
        low, high = min([*ends, 0.9]), max([*ends, 1.1])
        axes[0][0].set_xlim(low / 1.05, high * 1.05)
        ticks = [
            t
            for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 5, 10, 20, 50, 100)
            if low / 1.05 <= t <= high * 1.05
        ]
        axes[0][0].set_xticks(ticks if high / low < 2 else [t for t in ticks if t not in (0.8, 0.9, 1.1, 1.25, 1.5)])
    figure.supxlabel(f"time to first token, {names[1]} / {names[0]}", fontsize=settings.font_pt)
    handles = [
        Line2D([], [], color=style.state_colour(s), marker=style.state_marker(s), markersize=3.5, linewidth=1, label=s)
        for s in registry.in_order(shifts)
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles) or 1)
    text = f"Time to first token of {names[1]} over {names[0]}, per cell, with the {captions.INTERVAL}. What differs: {'; '.join(differing) or 'nothing declared'}."
    return style.Drawing(figure, comparison, text)
