"""Figure 9: tokens that are lost to blocks, at lengths around their borders."""

from __future__ import annotations

import matplotlib.pyplot as plt
import polars as pl

from coldprefix.figures import captions, style
from coldprefix.study.config import Figures


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw the sweep `granularity`: tokens in common with the cached prompt that are computed all the same, against its length."""
    style.apply(settings)
    data = data.of(sweep="granularity")
    # Rejected trials, too: a hit that reuses nothing is no hit, and is what is shown here.
    shown = data.trials.filter(~pl.col("burn_in")).drop_nulls(["query_cached_tokens", "query_reusable_tokens"])
    lost = pl.col("query_reusable_tokens") - pl.col("query_cached_tokens")
    rows = (
        shown.group_by("phase", "warmup_prompt_tokens", maintain_order=True)
        .agg(n=pl.len(), common_tokens=pl.col("query_reusable_tokens").median(), least_lost=lost.min(), most_lost=lost.max())
        .sort("phase", "warmup_prompt_tokens")
    )
    figure, axes = plt.subplots(figsize=(settings.column_in, 2.3))
    for phase in data.phases:
        own = rows.filter(pl.col("phase") == phase)
        look = {
            "color": style.BACKEND_COLOURS[phase],
            "marker": style.BACKEND_MARKERS[phase],
            "markersize": 3.5,
            "linewidth": 0.7,
            "linestyle": ":",
        }
        axes.plot(own["warmup_prompt_tokens"], own["most_lost"], label=style.backend_title(phase), **look)
    axes.set_xlabel("length of the cached prompt (tokens)")
    axes.set_ylabel("tokens of it that\nare computed again")
    axes.set_ylim(bottom=-2)
    figure.legend(loc="outside upper center", ncols=2, handlelength=1.8)
    names, machine = captions.where(data.provenance)
    captions.note(figure, f"Weights: {names}.\n{machine}.\nEvery trial; counts do not depend on the machine.", settings.font_pt)
    equal = rows.filter(pl.col("least_lost") != pl.col("most_lost")).is_empty()
    text = "What blocks cost: tokens that a prompt with a question has in common with the cached one and that the engine computes all the same,"
    text += " at lengths on both sides of a block's border. "
    text += "All trials of a length gave the same number." if equal else "Shown is the most of the trials of a length."
    processes = shown["engine_process"].n_unique()
    text += f" {shown.height} trials in {processes} engine processes, those that are too short to be a hit, too; {names}; one machine: {machine}."
    return style.Drawing(figure, rows, text)
