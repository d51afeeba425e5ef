"""Figure 5: the batch-size confound. TTFT of a miss for n_batch from 64 to 2048, on both interfaces of llama.cpp."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import polars as pl

from coldprefix.analysis.statistics import estimate
from coldprefix.figures import captions, style
from coldprefix.study.config import Figures


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw the sweep `batch_size`: a point with its interval per size and interface, and the processes' medians beside it."""
    style.apply(settings)
    data = data.of(sweep="batch_size")
    figure, axes = plt.subplots(figsize=(settings.column_in, 2.7))
    rows: list[dict[str, Any]] = []
    batches: dict[tuple[str, str], tuple[int, int, int]] = {}
    for record in data.provenance:
        job, in_force = record["job"], record["in_force"]
        batches[job["phase"], job["variant"]] = (job["settings"]["batch_tokens"], in_force["batch_tokens"], in_force["ubatch_tokens"])
    sizes = sorted({asked for asked, _, _ in batches.values()})
    for phase, shift, width in style.beside(data.phases):
        colour, marker = style.BACKEND_COLOURS[phase], style.BACKEND_MARKERS[phase]
        label: str | None = style.backend_title(phase)
        for (of, variant), (asked, in_force, ubatch) in sorted(batches.items(), key=lambda item: item[1]):
            if of != phase:
                continue
            found = estimate(data.of(phase=phase, variant=variant).trials.filter("valid"), "ttft_ms")
            row = style.row_of(found)
            named = {"phase": phase, "variant": variant, "n_batch": asked, "n_batch_in_force": in_force, "n_ubatch_in_force": ubatch}
            rows.append(named | {"unit": "ms"} | row)
            if found.value is None:
                continue
            # Side by side, so that both intervals show; single processes are no series in n_batch, so no line joins them.
            x, away = sizes.index(asked) + shift / 2, width / 4 * (1 if shift >= 0 else -1)
            look = {"color": colour, "marker": marker, "linestyle": ""}
            axes.plot([x + away] * len(found.units), found.units, markersize=2.2, alpha=0.6, markeredgewidth=0, **look)
            axes.errorbar(x, found.value, style.errors(row), markersize=4.5, elinewidth=0.9, label=label, **look)
            label = None
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlabel("n_batch (tokens); n_ubatch the same, at most 512")
    axes.set_ylabel("TTFT of a miss (ms)")
    axes.set_ylim(0, 1.25 * (axes.dataLim.y1 if rows and axes.dataLim.y1 > 0 else 1.0))
    axes.legend(loc="upper right", ncols=2, handlelength=1.2)
    bars = "{};\nsmall: processes' medians;\nbars: " + captions.INTERVAL + "."
    captions.note(figure, captions.measured_note(data, wrap=True, bars=bars), settings.font_pt)
    capped = sorted({row["n_batch_in_force"] for row in rows if row["n_batch_in_force"] != row["n_batch"]})
    text = f"Time to first token of a miss ({', '.join(sorted(set(data.trials['configuration'])))}) for n_batch from {sizes[0]} to {sizes[-1]}, on both"
    text += " interfaces of llama.cpp"
    text += f" (the engine caps n_batch at the context: {', '.join(map(str, capped))})." if capped else "."
    text += f" Small points: medians of the engine processes; large ones: their mean, with the {captions.INTERVAL}."
    return style.Drawing(figure, pl.DataFrame(rows, infer_schema_length=None), captions.caption(data, text))
