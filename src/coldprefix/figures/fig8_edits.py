"""Figure 8: what each kind of edit costs, by backend."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.axes import Axes

from coldprefix.analysis.statistics import Estimate, difference
from coldprefix.analysis.summary import BASELINE
from coldprefix.figures import captions, style
from coldprefix.study.config import Figures

PLAIN = "edits/plain"


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw the sweep `edits`: the share of the prompt that is computed again, and the ms that an edit costs over a hit, by edit and backend."""
    style.apply(settings)
    data = data.of(sweep="edits")
    groups = [(phase, variant) for variant in _variants(data) for phase in data.phases if len(_own(data, phase, variant))]
    states = [state for state in data.states if state != BASELINE]
    figure, (above, below) = plt.subplots(2, 1, figsize=(settings.text_in, 3.8), sharex=True)
    rows: list[dict[str, Any]] = []
    for place, (phase, variant) in enumerate(groups):
        own = _own(data, phase, variant)
        hits = own.filter(pl.col("state") == BASELINE)
        for state, shift, width in style.beside(states):
            cell = own.filter(pl.col("state") == state)
            if cell.is_empty():
                continue
            row = _row(phase, variant, state, cell, hits)
            rows.append(row)
            _bars(above, below, place + shift, width, row, state)
    labels = [
        style.backend_title(phase).replace(" ", "\n", 1) + ("" if variant == PLAIN else "\n--cache-reuse") for phase, variant in groups
    ]
    below.set_xticks(range(len(groups)), labels)
    above.set_ylabel("of the prompt\ncomputed again (%)")
    above.set_ylim(0, 105)
    below.set_ylabel("cost over a hit (ms)")
    below.axhline(0, color="black", linewidth=0.6)
    handles = [style.patch(state, state) for state in states]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 4) or 1, handlelength=1.4)
    captions.note(figure, captions.measured_note(data), settings.font_pt)
    text = (
        "What each kind of edit costs: above, the share of the edited prompt (without the question that follows it) that the engine says it"
    )
    text += " computed; below, its time to first token minus that of a hit, which only appends the question, in the same engine process. States are"
    text += " written edit-tokens@place. With --cache-reuse llama-server moves cached runs to other positions: their keys and values were computed"
    text += f" after other tokens, and answers change (report, answers). Bars: {captions.INTERVAL}."
    return style.Drawing(figure, pl.DataFrame(rows), captions.caption(data, text))


def _variants(data: style.Measured) -> list[str]:
    found = data.trials["variant"].unique(maintain_order=True).to_list()
    return sorted(found, key=lambda variant: variant != PLAIN)


def _own(data: style.Measured, phase: str, variant: str) -> pl.DataFrame:
    return data.trials.filter("valid", pl.col("phase") == phase, pl.col("variant") == variant)


def _row(phase: str, variant: str, state: str, cell: pl.DataFrame, hits: pl.DataFrame) -> dict[str, Any]:
    question = float((hits["query_prompt_tokens"] - hits["warmup_prompt_tokens"]).median() or 0)  # type: ignore[arg-type]
    computed, prompt = (float(cell[c].median() or 0) for c in ("stream_evaluated_tokens", "query_prompt_tokens"))  # type: ignore[arg-type]
    again = 100 * max(0.0, computed - question) / (prompt - question) if prompt > question else None
    cost = difference(cell, hits) if len(hits) else Estimate(0, 0, None, None, None, None)
    named = {"phase": phase, "variant": variant, "state": state, "computed_again_pct": again, "computed_tokens": computed}
    return named | {"reused_tokens": cell["stream_cached_tokens"].median(), "metric": "ttft_cost_ms", "unit": "ms"} | style.row_of(cost)


def _bars(above: Axes, below: Axes, x: float, width: float, row: dict[str, Any], state: str) -> None:
    shares = {"median": row["computed_again_pct"], "ci_low": None, "ci_high": None}
    style.bar(above, x, shares, state, width)
    if row["median"] is not None:
        style.bar(below, x, row, state, width)
