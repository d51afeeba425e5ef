"""Figure 3: what survives of a cached prompt after an edit, by attention architecture and engine."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import polars as pl

from coldprefix.analysis.statistics import difference
from coldprefix.analysis.summary import BASELINE
from coldprefix.figures import captions, style
from coldprefix.measure import edits
from coldprefix.study.config import Figures

SWEEP = "architectures"
# What is asked: (label, column of trials with what was reused). The first query of an edit, its second one after the old prompt has been
# sent again, and that old prompt itself.
STEPS = {"query": "query_cached_tokens", "stream": "stream_cached_tokens", "rewarm": "rewarm_cached_tokens"}


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw the sweep `architectures`: a panel per engine, a row per architecture, a column per edit: the share of [A, B] that is reused."""
    style.apply(settings)
    data = data.of(sweep=SWEEP)
    variants = data.trials["variant"].unique(maintain_order=True).to_list()
    columns = _columns(data)
    rows = [row for phase in data.phases for variant in variants for row in _rows(data, phase, variant, columns)]
    table = pl.DataFrame(rows)
    height = 1.1 + 0.22 * len(variants)
    figure, axes = plt.subplots(1, len(data.phases), figsize=(settings.text_in, height), sharey=True, squeeze=False)
    image = None
    for panel, phase in zip(axes[0], data.phases, strict=True):
        shares = [[_share(table, phase, variant, label) for label in columns] for variant in variants]
        image = panel.imshow(
            [[float("nan") if value is None else value for value in line] for line in shares],
            vmin=0,
            vmax=100,
            cmap="cividis",
            aspect="auto",
        )
        for y, line in enumerate(shares):
            for x, value in enumerate(line):
                colour = "black" if value is not None and value > 55 else "white" if value is not None else "#777777"
                text = "–" if value is None else f"{value:.0f}"
                panel.annotate(text, (x, y), ha="center", va="center", fontsize=settings.font_pt - 2.5, color=colour)
        panel.set_xticks(range(len(columns)), list(columns), rotation=60, ha="right", rotation_mode="anchor")
        panel.set_title(style.backend_title(phase))
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
    axes[0][0].set_yticks(range(len(variants)), [variant.partition("/")[2] for variant in variants])
    if image is not None:
        figure.colorbar(image, ax=axes, label="of the cached prompt\nreused (%)", fraction=0.025, pad=0.01)
    _, machine = captions.where(data.provenance)
    captions.note(
        figure, f"{machine}. Counts do not depend on the machine or on the weights; – : the engine does not run it.", settings.font_pt
    )
    text = "What survives of a cached prompt, by attention architecture (rows) and engine (panels): the share of its tokens that the engine says it"
    text += " reused when a question is appended, when one token is another at a depth of 10, 50 and 90 %, when the prompt is edited so a second time"
    text += " after the old one has been sent again, and when the old prompt comes back after such an edit. Columns ordered so. In the .csv: tokens,"
    text += " and what the edit costs over a hit in ms."
    return style.Drawing(figure, table, captions.caption(data, text))


def _columns(data: style.Measured) -> dict[str, tuple[str, str]]:
    """label: (state, step)."""
    depths = data.trials.group_by("state").agg(pl.col("query_reusable_tokens").median()).sort("query_reusable_tokens")
    changed = [state for state in depths["state"].to_list() if state != BASELINE]
    found = {"append": (BASELINE, "query")}
    found |= {f"edit at {_place(state)}": (state, "query") for state in changed}
    found |= {f"again at {_place(state)}": (state, "stream") for state in changed}
    return found | {f"back after {_place(state)}": (state, "rewarm") for state in changed}


def _place(state: str) -> str:
    return state.partition("@")[2] or edits.name_of(state)


def _rows(data: style.Measured, phase: str, variant: str, columns: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    own = data.trials.filter("valid", pl.col("phase") == phase, pl.col("variant") == variant)
    hits = own.filter(pl.col("state") == BASELINE)
    rows = []
    for label, (state, step) in columns.items():
        cell = own.filter(pl.col("state") == state).drop_nulls(STEPS[step])
        if cell.is_empty():
            continue
        reused, warm = (float(cell[c].median() or 0) for c in (STEPS[step], "warmup_prompt_tokens"))  # type: ignore[arg-type]
        named = {"phase": phase, "variant": variant, "model": cell["model"][0], "asked": label, "state": state, "step": step}
        counts = {"prompt_tokens": warm, "reused_tokens": reused, "reused_pct": 100 * reused / warm}
        cost = difference(cell, hits) if step == "stream" and state != BASELINE else None
        rows.append(named | counts | {"cost_over_a_hit_ms": cost.value if cost else None, "n": cell.height})
    return rows


def _share(table: pl.DataFrame, phase: str, variant: str, label: str) -> float | None:
    if table.is_empty():
        return None
    found = table.filter(pl.col("phase") == phase, pl.col("variant") == variant, pl.col("asked") == label)
    return float(found["reused_pct"][0]) if len(found) else None
