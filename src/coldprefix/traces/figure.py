"""Figure 12: the prompt tokens of a trace's requests by what becomes of them, with the breaks named, and the time to first token."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes

from coldprefix.figures import captions, style
from coldprefix.study.config import Figures
from coldprefix.traces.analyse import Analysis, sizes_of
from coldprefix.traces.cost import Replayed

MOST_BARS = 60  # more requests are drawn as means of as many
MOST_NAMES = 5
LOOKS = {
    "reused": ("#009E73", "", "reused"),
    "evicted": ("#E69F00", "//", "lost to the cache's size"),
    "again": ("#D55E00", "xx", "comes again behind a break"),
    "new": ("#BBBBBB", "", "new"),
}


def draw(analysis: Analysis, replays: Sequence[Replayed], settings: Figures) -> style.Drawing:
    """Tokens as the first replay's engine reused them; without a replay as the smallest of the caches would. Below, times of all replays."""
    style.apply(settings)
    rows, whose = _parts(analysis, replays[0] if replays else None)
    bars = _binned(rows)
    figure, axes = plt.subplots(1 + bool(replays), 1, figsize=(settings.column_in, 3.6 if replays else 2.6), sharex=True, squeeze=False)
    top: Axes = axes[0, 0]
    bottom = np.zeros(bars.height)
    for name, (colour, hatch, label) in LOOKS.items():
        values = bars[name].to_numpy()
        if values.any():
            top.bar(
                bars["x"], values, bars["width"], bottom=bottom, color=colour, hatch=hatch, edgecolor="white", linewidth=0.2, label=label
            )
        bottom = bottom + values
    top.set_ylabel("prompt tokens")
    _name_breaks(top, rows, bars, settings)
    if replays:
        _times(axes[1, 0], rows, replays)
    axes[-1, 0].set_xlabel("request")
    figure.legend(*top.get_legend_handles_labels(), loc="outside upper center", ncols=2, columnspacing=1, handlelength=1.4)
    said = _said(analysis, replays, whose)
    captions.note(figure, said, settings.font_pt)
    text = "Prompt tokens of each request of the trace, in their order, by what becomes of them"
    text += f"{' (means of neighbours)' if bars.height < rows.height else ''}, with the most costly breaks named"
    text += ", and the time to first token" if replays else ""
    return style.Drawing(figure, rows, f"{text}. {said.replace(chr(10), ' ')}")


def _said(analysis: Analysis, replays: Sequence[Replayed], whose: str) -> str:
    lines = [f"Tokens: {whose}."]
    for weights, machine in dict.fromkeys(captions.where([replay.record]) for replay in replays):
        lines.append(f"Weights: {weights}. {machine}.")
    if replays:
        processes = replays[0].processes
        lines.append(f"Times: median, least and most of {processes} engine processes; {sum(r.rejected for r in replays)} rejected.")
    return "\n".join(lines)


def _parts(analysis: Analysis, replay: Replayed | None) -> tuple[pl.DataFrame, str]:
    """(a row for each request with the parts of its prompt and its break, whose cache it is)"""
    kept = ["line", "prompt_tokens", "earlier_line", "ideal_tokens", "again_tokens", "kind", "field", "resumes"]
    rows = analysis.rows.with_columns(again_tokens=pl.col("again_tokens").fill_null(0))
    sizes = sizes_of(rows)
    if replay is not None:
        own = replay.requests.select("line", reused=pl.col("cached_tokens"))
        rows, whose = rows.join(own, on="line").select(*kept, "reused"), f"reused as {style.backend_title(replay.phase)} says"
    elif sizes:
        rows, whose = rows.select(*kept, reused=pl.col(f"lru_{sizes[0]}").cast(pl.Float64)), f"a cache of {sizes[0]} tokens"
        # Whole blocks of a pool: what is lost to their size is not lost to the pool's.
        rows = rows.with_columns(ideal_tokens=analysis.rows["block_tokens"])
    else:
        rows, whose = rows.select(*kept, reused=pl.col("ideal_tokens").cast(pl.Float64)), "an unlimited cache"
    evicted = (pl.col("ideal_tokens") - pl.col("reused")).clip(lower_bound=0)
    left = pl.col("prompt_tokens") - pl.col("reused") - evicted
    again = pl.min_horizontal(pl.col("again_tokens").cast(pl.Float64), left)
    return rows.with_columns(evicted=evicted, again=again).with_columns(new=left - pl.col("again")).with_row_index("request", 1), whose


def _binned(rows: pl.DataFrame) -> pl.DataFrame:
    """Bars: "x", "width", and the means of the parts of as many requests as one bar stands for."""
    each = -(-rows.height // MOST_BARS)
    table = rows.with_columns(bin=(pl.col("request") - 1) // each).group_by("bin", maintain_order=True)
    bars = table.agg(pl.col("request").mean().alias("x"), pl.len().alias("n"), *[pl.col(name).mean() for name in LOOKS])
    return bars.with_columns(width=pl.col("n") * 0.85)


def _name_breaks(axes: Axes, rows: pl.DataFrame, bars: pl.DataFrame, settings: Figures) -> None:
    """A letter over each of the most costly breaks, and what the letters mean above the bars."""
    if bars.height < rows.height:
        return
    costly = rows.filter(pl.col("again") > 0).sort("again", descending=True).head(MOST_NAMES).sort("request")
    high = float(max(rows["prompt_tokens"].to_list()))
    axes.set_ylim(0, high * (1.2 + 0.14 * costly.height))
    named = []
    for letter, row in zip("abcdefgh", costly.to_dicts(), strict=False):
        axes.annotate(letter, (row["request"], row["prompt_tokens"]), (0, 1), textcoords="offset points", ha="center", fontweight="bold")
        named.append(f"{letter}  {row['kind']}: {row['field'] or 'line ' + str(row['line'])}")
    axes.text(0.01, 1, "\n".join(named), transform=axes.transAxes, va="top", fontsize=settings.font_pt - 1)


def _times(axes: Axes, rows: pl.DataFrame, replays: Sequence[Replayed]) -> None:
    shift = 0.12
    for i, replay in enumerate(replays):
        own = rows.select("line", "request").join(replay.requests, on="line")
        x = own["request"].to_numpy() + (i - (len(replays) - 1) / 2) * shift
        error = np.array([own["ttft_ms"] - own["ttft_low"], own["ttft_high"] - own["ttft_ms"]])
        colour, marker = style.BACKEND_COLOURS[replay.phase], style.BACKEND_MARKERS[replay.phase]
        name = style.backend_title(replay.phase)
        axes.errorbar(x, own["ttft_ms"], error, color=colour, marker=marker, markersize=3, linewidth=0.8, elinewidth=0.5, label=name)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
    axes.set_ylabel("TTFT (ms)")
    axes.legend(loc="upper left", ncols=2, columnspacing=1, handlelength=1.4)
