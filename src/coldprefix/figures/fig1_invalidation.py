"""Figure 1: the cost of prefix invalidation. TTFT by configuration, hit beside miss, a panel per backend."""

from __future__ import annotations

import matplotlib.pyplot as plt
import polars as pl

from coldprefix.figures import style
from coldprefix.study.config import Figures


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw figure 1 for all phases of the main experiment."""
    style.apply(settings)
    data = data.of(sweep="main")
    summary, provenance = data.summary, data.provenance
    ttft = summary.filter(pl.col("metric") == "ttft_ms")
    effects = summary.filter(pl.col("metric") == "ttft_degradation_pct")
    phases = list(dict.fromkeys(ttft["phase"]))
    lengths = {r["job"]["configuration"]: r["job"]["lengths"] for r in provenance}
    configurations = [name for name in lengths if name in set(ttft["configuration"])]
    states = data.states
    wide = len(phases) > 1
    size = (settings.text_in if wide else settings.column_in, 2.4)
    figure, axes = plt.subplots(1, len(phases), figsize=size, sharey=True, squeeze=False)
    for panel, phase in zip(axes[0], phases, strict=True):
        for i, configuration in enumerate(configurations):
            for state, shift, width in style.beside(states):
                row = style.find(ttft, phase=phase, configuration=configuration, state=state)
                if row:
                    style.bar(panel, i + shift, row, state, width)
            bars = ttft.filter((pl.col("phase") == phase) & (pl.col("configuration") == configuration))
            top = max((row["ci_high"] or row["median"] for row in bars.iter_rows(named=True) if row["median"] is not None), default=0)
            for state, shift, _ in style.beside(states):
                effect = style.find(effects, phase=phase, configuration=configuration, state=state)
                if effect:
                    at = i if len(states) == 2 else i + shift
                    label, points = f"{style.signed(effect['median'], 0)} %", settings.font_pt - 1
                    panel.annotate(label, (at, top), (0, 3), textcoords="offset points", ha="center", fontsize=points)
        panel.set_title(style.backend_title(phase))
        panel.set_xticks(range(len(configurations)), [style.configuration_label(c, lengths[c]) for c in configurations])
    axes[0][0].set_ylabel("time to first token (ms)")
    handles = [style.patch(state, f"cache {state}") for state in states]
    # The panels share their axis, so the limits come last; room for the numbers above the bars.
    axes[0][0].set_ylim(0, 1.15 * max(row["ci_high"] or row["median"] or 1.0 for row in ttft.iter_rows(named=True)))
    figure.legend(handles=handles, loc="outside upper right", ncols=len(states), handlelength=1.4, borderaxespad=0.1)
    style.note(figure, style.measured_note(data, wrap=not wide), settings.font_pt)
    text = "Time to first token by configuration, cache hit beside cache miss; above the bars, what a miss costs over a hit. Every trial is"
    text += " a hit or a miss by what the engine reports it reused. Medians with 95 % bootstrap intervals;"
    return style.Drawing(figure, pl.concat([ttft, effects]), style.caption(data, text))
