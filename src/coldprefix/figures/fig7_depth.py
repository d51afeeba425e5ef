"""Figure 7: what an edit costs by where it stands in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.axes import Axes

from coldprefix.analysis.statistics import Estimate, difference, estimate
from coldprefix.analysis.summary import BASELINE
from coldprefix.figures import captions, style
from coldprefix.study.config import Figures


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw the sweep `depth`: a column per backend, TTFT above and reused tokens below, against the depth of an edit in % of [A, B]."""
    style.apply(settings)
    data = data.of(sweep="depth")
    figure, axes = plt.subplots(2, len(data.phases), figsize=(settings.text_in, 3.4), sharex=True, sharey="row", squeeze=False)
    rows: list[dict[str, Any]] = []
    tokens = sorted(data.trials["warmup_prompt_tokens"].drop_nulls().unique())
    for panels, phase in zip(axes.T, data.phases, strict=True):
        for i, length in enumerate(tokens):
            own = data.trials.filter("valid", pl.col("phase") == phase, pl.col("warmup_prompt_tokens") == length)
            rows += _curve(panels, own, phase, length, hollow=i > 0)
        panels[0].set_title(style.backend_title(phase))
        panels[1].set_xlabel("depth of the edit (%)")
        panels[1].set_xticks([0, 25, 50, 75, 100])
    axes[0][0].set_ylim(bottom=0)
    axes[1][0].set_ylim(bottom=0)
    axes[0][0].set_ylabel("TTFT (ms)")
    axes[1][0].set_ylabel("tokens reused,\nsays the engine")
    grey = {"color": "#777777", "linewidth": 0.8}
    measured = {"linestyle": "", "marker": "o", "color": "#555555", "markersize": 3.5}
    if len(tokens) == 1:
        points = [plt.Line2D([], [], label="measured", **measured)]
    else:
        points = [
            plt.Line2D([], [], label=f"{n:,} tokens", markerfacecolor="white" if i else None, **measured) for i, n in enumerate(tokens)
        ]
    lines = [
        *points,
        plt.Line2D([], [], linestyle="--", label="predicted from the tokens computed", **grey),
        plt.Line2D([], [], linestyle=":", label="in common with the cached prompt", **grey),
    ]
    figure.legend(handles=lines, loc="outside upper right", ncols=len(lines), handlelength=2.2)
    captions.note(figure, captions.measured_note(data), settings.font_pt)
    text = "What an edit costs by where it stands: one token of a cached prompt is another, at 0 to 100 % of its length (100 %: nothing is edited, a"
    text += " question is appended). Above, time to first token of the edited prompt with its question; dashed, what the tokens that it computes"
    text += " predict, from the time per token between the edit at the head and no edit. Below, the tokens that the engine says it reused; dotted,"
    text += f" those that the two prompts have in common. Bars: {captions.INTERVAL}."
    return style.Drawing(figure, pl.DataFrame(rows), captions.caption(data, text))


def _curve(panels: Sequence[Axes], own: pl.DataFrame, phase: str, tokens: int, hollow: bool) -> list[dict[str, Any]]:
    look: dict[str, Any] = {
        "color": style.BACKEND_COLOURS[phase],
        "marker": style.BACKEND_MARKERS[phase],
        "markersize": 3.5,
        "markerfacecolor": "white" if hollow else None,
        "linewidth": 0.9,
    }
    cells = {str(state): cell for (state,), cell in own.group_by("state", maintain_order=True)}
    rows = [_row(phase, tokens, state, cell) for state, cell in cells.items()]
    rows.sort(key=lambda row: row["depth_pct"])
    if not rows:
        return []
    deepest, hit = cells[rows[0]["state"]], cells.get(BASELINE)
    per_token = difference(deepest, hit, per="stream_evaluated_tokens") if hit is not None else Estimate(0, 0, None, None, None, None)
    last = rows[-1]
    for row in rows:
        more = row["computed_tokens"] - last["computed_tokens"]
        row["predicted_ms"] = None if per_token.value is None else last["median"] + per_token.value * more
    depths = [row["depth_pct"] for row in rows]
    bars = [[style.errors(row)[side][0] for row in rows] for side in (0, 1)]
    panels[0].errorbar(depths, [row["median"] for row in rows], yerr=bars, elinewidth=0.7, zorder=3, **{**look, "linestyle": ""})
    if per_token.value is not None:
        panels[0].plot(depths, [row["predicted_ms"] for row in rows], "--", color="#777777", linewidth=0.8)
    panels[1].plot(depths, [row["common_tokens"] for row in rows], ":", color="#777777", linewidth=0.8)
    panels[1].plot(depths, [row["reused_tokens"] for row in rows], **look)
    return rows


def _row(phase: str, tokens: int, state: str, cell: pl.DataFrame) -> dict[str, Any]:
    common = float(cell["query_reusable_tokens"].median() or 0)  # type: ignore[arg-type]
    counts = {"reused_tokens": cell["stream_cached_tokens"].median(), "computed_tokens": cell["stream_evaluated_tokens"].median()}
    named = {"phase": phase, "prompt_tokens": tokens, "state": state, "depth_pct": 100 * common / tokens, "common_tokens": common}
    return named | counts | {"metric": "ttft_ms", "unit": "ms"} | style.row_of(estimate(cell, "ttft_ms"))
