"""Figure 5: the batch-size confound. TTFT of a miss for n_batch from 64 to 2048, on both interfaces of llama.cpp."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import polars as pl

from coldprefix.analysis.statistics import estimate, groups
from coldprefix.figures import style
from coldprefix.study.config import Figures


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw the sweep `batch_size`: a line per interface, with what n_batch and n_ubatch the engine had in force."""
    style.apply(settings)
    data = data.of(sweep="batch_size")
    figure, axes = plt.subplots(figsize=(settings.column_in, 2.4))
    rows: list[dict[str, Any]] = []
    asked = {
        (r["job"]["phase"], r["job"]["variant"]): (
            r["job"]["settings"]["batch_tokens"],
            r["in_force"]["batch_tokens"],
            r["in_force"]["ubatch_tokens"],
        )
        for r in data.provenance
    }
    sizes = sorted({value[0] for value in asked.values()})
    for phase in data.phases:
        points = []
        for (of, variant), (batch, batch_in_force, ubatch) in sorted(asked.items(), key=lambda item: item[1][0]):
            if of != phase:
                continue
            cell = data.trials.filter(pl.col("valid") & (pl.col("phase") == phase) & (pl.col("variant") == variant))
            found = vars(estimate(groups(cell, "ttft_ms")))
            rows.append(
                {"phase": phase, "variant": variant, "n_batch": batch, "n_batch_in_force": batch_in_force, "n_ubatch_in_force": ubatch}
                | {k if k == "n" else f"{k}_ms": v for k, v in found.items()}
            )
            if found["median"] is not None:
                points.append((sizes.index(batch), found))
        if not points:
            continue
        colour, marker = style.BACKEND_COLOURS[phase], style.BACKEND_MARKERS[phase]
        errors = [[style.interval(found)[i][0] for _, found in points] for i in (0, 1)]
        line = "-" if phase == "phase3a" else "--"
        x = [at + (-0.05 if phase == "phase3a" else 0.05) for at, _ in points]  # side by side, so that both intervals show
        axes.errorbar(
            x,
            [f["median"] for _, f in points],
            errors,
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1,
            linestyle=line,
            elinewidth=0.8,
            label=style.backend_title(phase),
        )
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlabel("n_batch (tokens); n_ubatch the same, at most 512")
    axes.set_ylabel("TTFT of a miss (ms)")
    axes.set_ylim(bottom=0)
    axes.set_ylim(top=axes.get_ylim()[1] * 1.25)
    axes.legend(loc="upper right", ncols=2, handlelength=2.2)
    style.note(figure, style.measured_note(data, wrap=True), settings.font_pt)
    capped = sorted({row["n_batch_in_force"] for row in rows if row["n_batch_in_force"] != row["n_batch"]})
    text = f"Time to first token of a miss ({', '.join(sorted(set(data.trials['configuration'])))}) for n_batch from {sizes[0]} to {sizes[-1]}, on both"
    text += " interfaces of llama.cpp"
    text += f" (the engine caps n_batch at the context: {', '.join(map(str, capped))})." if capped else "."
    return style.Drawing(
        figure, pl.DataFrame(rows, infer_schema_length=None), style.caption(data, text + " Medians with 95 % bootstrap intervals;")
    )
