"""Figure 1: the cost of prefix invalidation. TTFT by configuration, hit beside miss, a panel per backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from coldprefix.config import Figures
from coldprefix.figures import style

WIDTH = 0.38


def draw(summary: pl.DataFrame, provenance: Sequence[Mapping[str, Any]], settings: Figures) -> tuple[Figure, pl.DataFrame]:
    """Draw figure 1 for all phases in ``summary``. Returns it with the rows it shows."""
    style.apply(settings)
    ttft = summary.filter(pl.col("metric") == "ttft_ms")
    effects = summary.filter(pl.col("metric") == "ttft_degradation_pct")
    phases = list(dict.fromkeys(ttft["phase"]))
    lengths = {r["job"]["configuration"]: r["job"]["lengths"] for r in provenance}
    configurations = [name for name in lengths if name in set(ttft["configuration"])]
    wide = len(phases) > 1
    size = (settings.text_in if wide else settings.column_in, 2.4)
    figure, axes = plt.subplots(1, len(phases), figsize=size, sharey=True, squeeze=False)
    for panel, phase in zip(axes[0], phases, strict=True):
        for i, configuration in enumerate(configurations):
            for side, state in ((-1, "hit"), (1, "miss")):
                row = style.find(ttft, phase=phase, configuration=configuration, state=state)
                if row:
                    style.bar(panel, i + side * WIDTH / 2, row, state, WIDTH)
            bars = ttft.filter((pl.col("phase") == phase) & (pl.col("configuration") == configuration))
            effect = style.find(effects, phase=phase, configuration=configuration)
            if effect:
                top = max(row["ci_high"] or row["median"] for row in bars.iter_rows(named=True) if row["median"] is not None)
                label = f"{style.signed(effect['median'], 0)} %"
                panel.annotate(label, (i, top), (0, 3), textcoords="offset points", ha="center", fontsize=settings.font_pt - 1)
        panel.set_title(style.backend_title(phase))
        panel.set_xticks(range(len(configurations)), [style.configuration_label(c, lengths[c]) for c in configurations])
    axes[0][0].set_ylabel("time to first token (ms)")
    handles = [Patch(facecolor=style.COLOURS[s], hatch=style.HATCHES[s], edgecolor="white", label=f"cache {s}") for s in ("hit", "miss")]
    # The panels share their axis, so the limits come last; room for the numbers above the bars.
    axes[0][0].set_ylim(0, 1.15 * max(row["ci_high"] or row["median"] or 1.0 for row in ttft.iter_rows(named=True)))
    figure.legend(handles=handles, loc="outside upper right", ncols=2, handlelength=1.4, borderaxespad=0.1)
    style.note(figure, style.measured_note(summary, provenance, wrap=not wide), settings.font_pt)
    return figure, pl.concat([ttft, effects])
