"""The advice: each backend's cost of the prompt as it stands and in its best order, predicted and measured."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import polars as pl

from coldprefix.advice.order import Layout, best_of, layout_of, reused_by
from coldprefix.advice.times import curves, measured, predicted
from coldprefix.analysis.statistics import Estimate
from coldprefix.figures.style import backend_title
from coldprefix.study import registry
from coldprefix.study.prompt_file import Prompt

AS_IT_STANDS, BEST = "as it stands", "best"
ADVICE: dict[str, tuple[pl.DataType, str]] = {
    "phase": (pl.String(), "the backend"),
    "order": (pl.String(), "as it stands, or best"),
    "segments": (pl.String(), "the segments in this order"),
    "computed_tokens": (pl.Float64(), "expected for one request, by the rule of the engine's cache"),
    "prompt_tokens": (pl.Int32(), "length of the prompt"),
    "predicted_ms": (pl.Float64(), "expected time to first token, from the sweep over lengths"),
    "predicted_low": (pl.Float64(), "lower end of its 95 % interval over engine processes; null below 3"),
    "predicted_high": (pl.Float64(), "upper end"),
    "measured_ms": (pl.Float64(), "the same from each case, measured (sweep layout)"),
    "measured_low": (pl.Float64(), "lower end of its 95 % interval over engine processes; null below 3"),
    "measured_high": (pl.Float64(), "upper end"),
}


def advise(prompt: Prompt, trials: pl.DataFrame, in_force: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """Two rows for each backend (ADVICE).

    Args:
        trials: tables.TRIALS of the sweeps `scaling` and `layout`.
        in_force: settings in force by phase, of the preflights.
    """
    valid = trials.filter("valid")
    rows = []
    for phase in registry.phases():
        own = valid.filter(pl.col("phase") == phase)
        if phase not in in_force or own.is_empty():
            continue
        engine, interface = registry.phases()[phase]
        reused = reused_by(partial(registry.engine(engine).memory, in_force[phase], interface))
        for name, layout in ((AS_IT_STANDS, layout_of(prompt.segments, prompt, reused)), (BEST, best_of(prompt, reused))):
            rows.append({"phase": phase, "order": name} | _row(layout, prompt, own))
    return pl.DataFrame(rows, schema={name: dtype for name, (dtype, _) in ADVICE.items()})


def _row(layout: Layout, prompt: Prompt, own: pl.DataFrame) -> dict[str, Any]:
    found = {
        "predicted": predicted(layout, curves(own.filter(pl.col("sweep") == "scaling"))),
        "measured": measured(layout, prompt.tokens - prompt.question.tokens, own.filter(pl.col("sweep") == "layout")),
    }
    row: dict[str, Any] = {"segments": layout.names, "computed_tokens": layout.computed_tokens, "prompt_tokens": prompt.tokens}
    for name, estimate in found.items():
        row |= _told(name, estimate)
    return row


def _told(name: str, found: Estimate) -> dict[str, Any]:
    return {f"{name}_ms": found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def page(advice: pl.DataFrame, prompt: Prompt, scope: str) -> str:
    """The advice as Markdown: an answer for each backend, then what it was made from. ``scope``: weights and machine that it holds for."""
    lines = ["# Where the parts that change should stand", ""]
    lines += [f"A prompt of {prompt.tokens} tokens, sent {prompt.requests_per_hour:g} times an hour to one cache. Holds for {scope}.", ""]
    for (phase,), rows in advice.group_by("phase", maintain_order=True):
        now, best = rows.row(0, named=True), rows.row(1, named=True)
        lines.append(f"- **{backend_title(str(phase))}**: {_answer(now, best)}")
    lines += [
        "",
        "| backend | order | segments | computed tokens | predicted ms | measured ms | prediction off by |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in advice.iter_rows(named=True):
        cells = [backend_title(row["phase"]), row["order"], row["segments"], f"{row['computed_tokens']:.0f} of {row['prompt_tokens']}"]
        lines.append("| " + " | ".join([*cells, _ms(row, "predicted"), _ms(row, "measured"), _off(row)]) + " |")
    lines += [
        "",
        "Expected values for one request after another of the same prompt: each segment is taken to change by itself, at fixed times. Square",
    ]
    lines += [
        "brackets: 95 % intervals over engine processes. Measured: each way in which a request can differ from the one before, one token"
    ]
    lines += ["changed there, weighted by how often it happens. Queues, other prompts and evictions are not in it.", ""]
    return "\n".join(lines)


def _answer(now: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    if now["segments"] == best["segments"]:
        return (
            f"the order as it stands is the best: {now['computed_tokens']:.0f} of {now['prompt_tokens']} tokens are computed for a request."
        )
    text = f"write {best['segments']}: {now['computed_tokens']:.0f} computed tokens become {best['computed_tokens']:.0f}"
    for kind in ("measured", "predicted"):
        one, other = now[f"{kind}_ms"], best[f"{kind}_ms"]
        if one is not None and other is not None:
            return f"{text}, {one:.1f} ms to the first token become {other:.1f} ({kind})."
    return text + "."


def _ms(row: Mapping[str, Any], kind: str) -> str:
    value, low, high = (row[f"{kind}_{part}"] for part in ("ms", "low", "high"))
    if value is None:
        return "not measured"
    return f"{value:.1f}" + (f" [{low:.1f}, {high:.1f}]" if low is not None else "")


def _off(row: Mapping[str, Any]) -> str:
    if row["predicted_ms"] is None or row["measured_ms"] is None:
        return "-"
    return f"{100 * (row['predicted_ms'] / row['measured_ms'] - 1):+.0f} %"
