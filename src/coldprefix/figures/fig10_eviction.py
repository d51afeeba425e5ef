"""Figure 10: how many tokens of other prompts until a cached prefix is gone, and what the engines' rules predict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.axes import Axes

from coldprefix.analysis.statistics import estimate
from coldprefix.engines.reuse import Promise
from coldprefix.figures import captions, style
from coldprefix.measure.prompts import FOREIGN_PROMPT
from coldprefix.study import registry
from coldprefix.study.config import Figures

STEP = 32  # tokens between two points of a predicted line
NAMES = {"pool": "small pool", "one_slot": "1 slot", "four_slots": "4 slots", "tier_2mib": "1 slot and tier"}
DASHES = ["-", "--", ":", "-."]


def draw(data: style.Measured, settings: Figures) -> style.Drawing:
    """Draw the sweep `eviction`, a panel for each engine: share of the cached prompt that the query reuses, against the tokens of other
    prompts that were sent in between. Marks are measured, lines are what the rule says of the settings in force."""
    style.apply(settings)
    data = data.of(sweep="eviction")
    engines = list(dict.fromkeys(registry.phases()[phase].engine for phase in data.phases))
    figure, axes = plt.subplots(len(engines), 1, figsize=(settings.column_in, 0.7 + 1.8 * len(engines)), sharex=True, squeeze=False)
    records = {(record["job"]["phase"], record["job"]["variant"]): record for record in data.provenance}
    rows: list[dict[str, Any]] = []
    for axis, engine in zip(axes[:, 0], engines, strict=True):
        of_engine = [key for key in records if registry.phases()[key[0]].engine == engine]
        variants = list(dict.fromkeys(variant for _, variant in of_engine))
        for phase, variant in sorted(of_engine, key=lambda key: (variants.index(key[1]), key[0])):
            own = data.trials.filter(~pl.col("burn_in"), pl.col("phase") == phase, pl.col("variant") == variant)
            found = _rows(own, records[phase, variant])
            _line(axis, found, phase, DASHES[variants.index(variant) % len(DASHES)])
            rows += found
        axis.set_ylim(-6, 110)
        axis.set_ylabel(f"{registry.engine(engine).title}: reused of\nthe cached prompt (%)")
        axis.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=2, handlelength=2.2, columnspacing=1.2)
    axes[-1][0].set_xlabel("tokens of other prompts in between")
    names, machine = captions.where(data.provenance)
    captions.note(figure, f"Weights: {names}. {machine}.\nMarks: measured; lines: by the engine's rule.", settings.font_pt)
    wrong = sum(
        row["measured_pct"] is not None and not row["least_pct"] - 1e-9 <= row["measured_pct"] <= row["most_pct"] + 1e-9 for row in rows
    )
    marks = sum(row["measured_pct"] is not None for row in rows)
    text = "How much foreign traffic a cached prefix survives, in caches that are made small: share of the cached prompt that the engine says it"
    text += f" reused for the same prompt with a question, after other prompts of {FOREIGN_PROMPT} tokens each. Marks: medians of all trials, rejected"
    text += " ones included; lines: what the engine's rule predicts from the settings in force, shaded where it gives a range. "
    text += f"{marks - wrong} of {marks} measured values are as predicted."
    return style.Drawing(figure, pl.DataFrame(rows, infer_schema_length=None), captions.caption(data, text))


def predicted(record: Mapping[str, Any], warm: int, question: int, between: int) -> Promise:
    """What the rule of a cell's engine says: tokens that a prompt of ``warm`` tokens with a question reuses after so many of other prompts."""
    job = record["job"]
    memory = registry.engine(job["engine"]).memory(record["in_force"], job["interface"])
    every = iter(range(warm + question + between))  # no two tokens are equal

    def part(tokens: int) -> list[int]:
        return [next(every) for _ in range(tokens)]

    cached = part(warm)
    memory.ask(cached, 1)
    while between:
        size = min(between, FOREIGN_PROMPT)
        memory.ask(part(size), 1)
        between -= size
    return memory.ask([*cached, *part(question)], 1)


def _rows(own: pl.DataFrame, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each number of tokens: those measured, and more where the rule alone is asked."""
    known = own.drop_nulls(["query_cached_tokens", "warmup_prompt_tokens"])
    if known.is_empty():
        return []
    warm, question = known["warmup_prompt_tokens"][0], known["query_prompt_tokens"][0] - known["warmup_prompt_tokens"][0]
    share = known.with_columns(pct=100 * pl.col("query_cached_tokens") / pl.col("warmup_prompt_tokens"))
    measured = {int(tokens): estimate(part, "pct", "linear") for (tokens,), part in share.group_by("foreign_tokens")}
    job = record["job"]
    rows = []
    for tokens in sorted({*measured, *range(0, max(measured) + 1, STEP)}):
        promise, value = predicted(record, warm, question, tokens), measured.get(tokens)
        row: dict[str, Any] = {"phase": job["phase"], "variant": job["variant"], "foreign_tokens": tokens, "cached_prompt_tokens": warm}
        row |= {"n": value.n if value else 0, "processes": value.processes if value else 0, "measured_pct": value.value if value else None}
        rows.append(row | {"least_pct": 100 * promise.least / warm, "most_pct": 100 * promise.most / warm})
    return rows


def _line(axis: Axes, rows: list[dict[str, Any]], phase: str, dashes: str) -> None:
    if not rows:
        return
    name = rows[0]["variant"].partition("/")[2]
    colour = style.BACKEND_COLOURS[phase]
    tokens = [row["foreign_tokens"] for row in rows]
    most, least = [row["most_pct"] for row in rows], [row["least_pct"] for row in rows]
    axis.plot(tokens, most, dashes, color=colour, linewidth=0.9)
    axis.fill_between(tokens, least, most, color=colour, alpha=0.25, linewidth=0)
    seen = [(row["foreign_tokens"], row["measured_pct"]) for row in rows if row["measured_pct"] is not None]
    interface = style.backend_title(phase).rpartition(" ")[2]
    label = f"{interface}, {NAMES.get(name, name)}"
    look: dict[str, Any] = {"color": colour, "marker": style.BACKEND_MARKERS[phase], "markersize": 3.5, "markerfacecolor": "none"}
    axis.plot(*zip(*seen, strict=True), linestyle="", **look)
    axis.plot([], [], dashes, linewidth=0.9, label=label, **look)
