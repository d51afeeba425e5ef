"""Figure 6: where the original study went wrong. The same misses with repeated and with fresh prompts, by trial number."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.lines import Line2D

from coldprefix.figures import captions, style
from coldprefix.study.config import Figures


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw the sweep `confound`: a column per backend, the time of the first query of each trial above, its reused tokens below."""
    style.apply(settings)
    data = data.of(sweep="confound")
    phases = data.phases
    size = (settings.text_in if len(phases) > 1 else settings.column_in, 3.3)
    figure, axes = plt.subplots(2, len(phases), figsize=size, sharex=True, sharey="row", squeeze=False, height_ratios=[1.5, 1])
    rows = data.trials.filter(pl.col("process") == 0).select(
        *("phase", "variant", "configuration", "content", "process", "engine_process", "trial", "query_ms", "query_prompt_tokens"),
        *("query_cached_tokens", "query_evaluated_tokens", "query_rejection"),
    )
    asked = int(rows["query_prompt_tokens"].max() or 0)  # type: ignore[arg-type]
    for panels, phase in zip(axes.T, phases, strict=True):
        colour, marker = style.BACKEND_COLOURS[phase], style.BACKEND_MARKERS[phase]
        for content, line, face in (("fresh", "-", colour), ("repeated", "--", "white")):
            cell = rows.filter((pl.col("phase") == phase) & (pl.col("content") == content)).sort("trial")
            kwargs = {"color": colour, "marker": marker, "markersize": 3.5, "linewidth": 0.9, "linestyle": line, "markerfacecolor": face}
            panels[0].plot(cell["trial"] + 1, cell["query_ms"], label=content, **kwargs)
            panels[1].plot(cell["trial"] + 1, cell["query_cached_tokens"], **kwargs)
        panels[0].set_title(style.backend_title(phase))
        panels[1].axhline(asked, color="#777777", linewidth=0.6, linestyle=":")
        panels[1].set_xlabel("trial")
        panels[1].set_xticks(sorted(set((rows["trial"] + 1).to_list())))
    axes[0][0].set_ylim(0, 1.08 * float(rows["query_ms"].max() or 1))  # type: ignore[arg-type]
    axes[1][0].set_ylim(-0.06 * asked, 1.25 * asked)
    axes[1][0].annotate(
        f"the whole prompt: {asked}", (1, asked), (0, 2), textcoords="offset points", fontsize=settings.font_pt - 2, color="#555555"
    )
    axes[0][0].set_ylabel("time of a miss (ms)")
    axes[1][0].set_ylabel("tokens reused,\nsays the engine")
    grey: dict[str, Any] = {"color": "#555555", "marker": "o", "markersize": 3.5, "linewidth": 0.9}
    handles = [
        Line2D([], [], linestyle="-", label="fresh prompts", **grey),
        Line2D([], [], linestyle="--", markerfacecolor="white", label="repeated prompts", **grey),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, handlelength=2.4)
    names, machine = captions.where(data.provenance)
    note = f"Weights: {names}. {machine}.\nEvery trial of the first engine process, the first trial too; llama-server has its default"
    note += " host-memory cache (8192 MiB)."
    captions.note(figure, note, settings.font_pt)
    refused = rows.filter(pl.col("query_rejection").is_not_null())
    text = "The confound of the original study: the same misses, [B, Q] after [A, B], with the same prompts in every trial and with fresh ones;"
    text += (
        " above the time of a one-token answer, below the prompt tokens that the engine says it reused. With repeated prompts a miss is one"
    )
    text += " only once in an engine process, wherever the engine keeps what it has seen. The first engine process of each cell is shown:"
    text += f" {rows.height} trials, none left out, so there is no interval; {refused.height} of them verification"
    text += f" rejects as misses ({refused.filter(pl.col('content') == 'repeated').height} with repeated prompts); {names}; one machine: {machine}."
    text += f" {captions.confounded(data.provenance)}"
    return style.Drawing(figure, rows, text.strip())
