"""The advice: each backend's cost of the prompt as it stands and in its best order, predicted and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import polars as pl

from coldprefix.advice.order import Layout, best_of, layout_of, reused_by
from coldprefix.advice.times import curves, measured, over_processes, predicted, saved
from coldprefix.analysis.statistics import Estimate
from coldprefix.figures.style import backend_title
from coldprefix.study import registry
from coldprefix.study.by_layout import SWEEP, ruler
from coldprefix.study.prompt_file import Prompt

TITLE = "Where the parts that change should stand"
HOW = """Expected values for one request after another of the same prompt: each segment is taken to change by itself, at fixed times. Square
brackets: 95 % intervals over engine processes; what an order saves is taken within each process. Measured: each way in which a request can
differ from the one before, one token changed there, weighted by how often it happens. Queues, other prompts and evictions are not in it."""
AS_IT_STANDS, BEST = "as it stands", "best"
ADVICE: dict[str, tuple[pl.DataType, str]] = {
    "phase": (pl.String(), "the backend"),
    "order": (pl.String(), "as it stands, or best"),
    "segments": (pl.String(), "the segments in this order"),
    "computed_tokens": (pl.Float64(), "expected for one request, by the rule of the engine's cache"),
    "prompt_tokens": (pl.Int32(), "length of the prompt"),
    "predicted_ms": (pl.Float64(), "expected time to first token, from the ruler (study/by_layout.py)"),
    "predicted_low": (pl.Float64(), "lower end of its 95 % interval over engine processes; null below 3"),
    "predicted_high": (pl.Float64(), "upper end"),
    "measured_ms": (pl.Float64(), "the same from each case, measured (sweep layout)"),
    "measured_low": (pl.Float64(), "lower end of its 95 % interval over engine processes; null below 3"),
    "measured_high": (pl.Float64(), "upper end"),
    "predicted_saved_ms": (
        pl.Float64(),
        "by how much the predicted time is less than as it stands, within one engine process; null as it stands",
    ),
    "predicted_saved_low": (pl.Float64(), "lower end of its 95 % interval over engine processes; null below 3"),
    "predicted_saved_high": (pl.Float64(), "upper end"),
    "measured_saved_ms": (pl.Float64(), "the same of the measured times"),
    "measured_saved_low": (pl.Float64(), "lower end of its 95 % interval over engine processes; null below 3"),
    "measured_saved_high": (pl.Float64(), "upper end"),
}
COLUMNS = (
    "backend",
    "order",
    "segments",
    "computed tokens",
    "predicted ms",
    "measured ms",
    "prediction off by",
    "saves, predicted",
    "saves, measured",
)


def advise(prompt: Prompt, trials: pl.DataFrame, in_force: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """Two rows for each backend (ADVICE).

    Args:
        trials: tables.TRIALS of the sweep `layout`.
        in_force: settings in force by phase, of the preflights.
    """
    valid = trials.filter("valid")
    rows: list[dict[str, Any]] = []
    for phase in registry.phases():
        own = valid.filter(pl.col("phase") == phase)
        if phase not in in_force or own.is_empty():
            continue
        engine, interface = registry.phases()[phase]
        reused = reused_by(partial(registry.engine(engine).memory, in_force[phase], interface))
        now, best = layout_of(prompt.segments, prompt, reused), best_of(prompt, reused)
        times = {kind: _times(kind, (now, best), prompt, own) for kind in ("predicted", "measured")}
        for i, (name, layout) in enumerate(((AS_IT_STANDS, now), (BEST, best))):
            row: dict[str, Any] = {"phase": phase, "order": name, "segments": layout.names}
            row |= {"computed_tokens": layout.computed_tokens, "prompt_tokens": prompt.tokens}
            for kind, by_order in times.items():
                row |= _told(kind, over_processes(by_order[i]))
                row |= _told(f"{kind}_saved", saved(*by_order)) if best != now and name == BEST else {}
            rows.append(dict.fromkeys(ADVICE) | row)
    return pl.DataFrame(rows, schema={name: dtype for name, (dtype, _) in ADVICE.items()})


def _times(kind: str, layouts: Sequence[Layout], prompt: Prompt, own: pl.DataFrame) -> list[dict[str, float]]:
    """Of each order the time by engine process."""
    trials = own.filter(pl.col("sweep") == SWEEP)
    if kind == "predicted":
        of = curves(trials, ruler(prompt))
        return [predicted(layout, of) for layout in layouts]
    return [measured(layout, prompt.tokens - prompt.question.tokens, trials) for layout in layouts]


def _told(name: str, found: Estimate) -> dict[str, Any]:
    return {f"{name}_ms": found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def answers(advice: pl.DataFrame) -> list[tuple[str, str]]:
    """For each backend its name and what to do."""
    pairs = advice.group_by("phase", maintain_order=True)
    return [(backend_title(str(phase)), _answer(rows.row(0, named=True), rows.row(1, named=True))) for (phase,), rows in pairs]


def cells(advice: pl.DataFrame) -> list[list[str]]:
    """The table as text, a list for each row, under COLUMNS."""
    found = []
    for row in advice.iter_rows(named=True):
        tokens = f"{row['computed_tokens']:.0f} of {row['prompt_tokens']}"
        times = [_ms(row, "predicted"), _ms(row, "measured"), _off(row), _ms(row, "predicted_saved"), _ms(row, "measured_saved")]
        found.append([backend_title(row["phase"]), row["order"], row["segments"], tokens, *times])
    return found


def page(advice: pl.DataFrame, prompt: Prompt, scope: str) -> str:
    """The advice as Markdown: an answer for each backend, then what it was made from. ``scope``: weights and machine that it holds for."""
    lines = [f"# {TITLE}", ""]
    lines += [f"A prompt of {prompt.tokens} tokens, sent {prompt.requests_per_hour:g} times an hour to one cache. Holds for {scope}.", ""]
    lines += [f"- **{backend}**: {text}" for backend, text in answers(advice)]
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in cells(advice)]
    return "\n".join([*lines, "", HOW, ""])


def _answer(now: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    if now["segments"] == best["segments"]:
        return (
            f"the order as it stands is the best: {now['computed_tokens']:.0f} of {now['prompt_tokens']} tokens are computed for a request."
        )
    text = f"write {best['segments']}: {now['computed_tokens']:.0f} computed tokens become {best['computed_tokens']:.0f}"
    for kind in ("measured", "predicted"):
        one, other = now[f"{kind}_ms"], best[f"{kind}_ms"]
        if one is not None and other is not None:
            less = f", {_ms(best, f'{kind}_saved')} ms less" if best[f"{kind}_saved_ms"] is not None else ""
            return f"{text}, {one:.1f} ms to the first token become {other:.1f}{less} ({kind})."
    return text + "."


def _ms(row: Mapping[str, Any], kind: str) -> str:
    value, low, high = (row[f"{kind}_{part}"] for part in ("ms", "low", "high"))
    if value is None:
        return "-" if kind.endswith("saved") else "not measured"
    return f"{value:.1f}" + (f" [{low:.1f}, {high:.1f}]" if low is not None else "")


def _off(row: Mapping[str, Any]) -> str:
    if row["predicted_ms"] is None or row["measured_ms"] is None:
        return "-"
    return f"{100 * (row['predicted_ms'] / row['measured_ms'] - 1):+.0f} %"
