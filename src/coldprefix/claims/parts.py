"""What several tests say of a cell or of a pair of cells, and the types of the parameters that they have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from coldprefix.analysis import statistics
from coldprefix.analysis.statistics import FEWEST_PROCESSES, Estimate
from coldprefix.claims.data import VALUE, CellName, Data, Sample, needed
from coldprefix.claims.effect import Effect, Judge, combined, inside, measured
from coldprefix.claims.verdict import Part, show, show_effect
from coldprefix.data.tables import METRICS, TRIALS
from coldprefix.strict import OneOf
from coldprefix.study.config import EnginePhase

Metric = Annotated[str, OneOf("metric", lambda: [m for m in METRICS if m in TRIALS] + [c for c in TRIALS if c.endswith("_tokens")])]
Phases = Annotated[tuple[EnginePhase, ...], Field(min_length=1)]


def missing_of(samples: Iterable[Sample]) -> str | None:
    """What these samples lack; None if nothing."""
    return "; ".join(sample.missing for sample in samples if sample.missing) or None


def missing_part(label: str, samples: Iterable[Sample]) -> Part | None:
    """The part that says which of these samples are missing; None if all are there."""
    missing = missing_of(samples)
    return Part(label, missing=missing) if missing else None


def sample_part(label: str, sample: Sample, agrees: Judge, text: str = "") -> Part:
    """The part of one sample, which is told without an interval where there is too little of it."""
    effect = sample.effect
    if effect is None:
        return Part(label, missing=sample.missing)
    return Part(label, agrees, effect, text, (sample.cell,), sample.n, sample.missing)


def partners(one: Sample, other: Sample) -> bool:
    """Was any of them measured beside the other, in one engine process by one job?"""
    return statistics.ratio(one.trials, other.trials, VALUE).n > 0


def ratio_of(over: Sample, under: Sample) -> Effect | None:
    """Median over median: of partners in one process, or else of cells apart, which may be minutes between. None where a value is not
    positive, so that there is no ratio."""
    if any((sample.trials[VALUE] <= 0).any() for sample in (over, under)):
        return None

    def estimate(confidence: float) -> Estimate:
        compare = statistics.ratio if partners(over, under) else statistics.apart
        return compare(over.trials, under.trials, VALUE, confidence)

    return measured(estimate)


def ratio_part(label: str, over: Sample, under: Sample, agrees: Judge, text: str = "") -> Part:
    """The part of two samples whose ratio decides; without a ``text`` it tells both medians."""
    if not over.n or not under.n:
        return Part(label, missing=missing_of([over, under]))
    effect = ratio_of(over, under)
    if effect is None:
        return Part(label, missing=f"{over.cell} or {under.cell} holds values that are not positive, so there is no ratio")
    text = text or f"medians {show(over.median)} and {show(under.median)}"
    cells = (over.cell, under.cell)
    return Part(label, agrees, effect, text, cells, over.n + under.n, missing_of([over, under]) or no_interval(effect, *cells))


def no_interval(effect: Effect, one: str, other: str) -> str | None:
    """Two cells that are each measured well enough may have too little in common."""
    if effect.low is not None:
        return None
    return f"{one} and {other} were partners in fewer than {FEWEST_PROCESSES} engine processes; {needed()}"


def lost_part(label: str, after: Sample, control: Sample, threshold: float, text: str) -> Part:
    """How much of what is reused in a control is no longer reused, in %: at least the threshold.

    Args:
        after, control: shares of a prompt that were reused, in %.
    """
    cells, n = (after.cell, control.cell), after.n + control.n
    kept, all_of_it = after.effect, control.effect
    if kept is None or all_of_it is None:
        return Part(label, missing=missing_of([after, control]))
    if not (all_of_it.low or all_of_it.value) > 50:
        return Part(label, text=text, cells=cells, n=n, missing=f"a control that keeps the prefix: {text}")
    effect = combined((kept, all_of_it), lambda one, other: 100 * (1 - one / other))
    return Part(label, inside(threshold, math.inf), effect, text, cells, n, missing_of([after, control]))


def cost_text(miss: Sample, hit: Sample) -> str:
    """What a miss costs over a hit in the same process, in ms and for each token that it computes more; "" if they are no partners."""
    cost = statistics.difference(miss.trials, hit.trials)
    per_token = statistics.difference(miss.trials, hit.trials, per="stream_evaluated_tokens")
    told = [effect for effect in (_shown(cost, "ms"), _shown(per_token, "ms a token computed more")) if effect]
    return ", ".join(told)


def _shown(found: Estimate, unit: str) -> str:
    return "" if found.value is None else show_effect(Effect(found.value, found.low, found.high), unit)


def median_of(values: pl.Series) -> float | None:
    """Median of what is known; None if nothing is."""
    known = values.drop_nulls().cast(pl.Float64).to_numpy()
    return float(np.median(known)) if len(known) else None


def repeated_note(data: Data, cell: CellName) -> Part:
    """What repeated prompts do: the "misses" after the first, most of them rejected as misses. Empty if not measured."""
    used = data.counted(cell).filter(pl.col("trial") > 0).drop_nulls(["query_ms", "query_cached_tokens"])
    if used.is_empty():
        return Part(cell.phase)
    reused, length, ms = (median_of(used[c]) or 0.0 for c in ("query_cached_tokens", "query_prompt_tokens", "query_ms"))
    rejected = used["query_rejection"].is_not_null().sum()
    text = f"with repeated prompts a 'miss' of {cell.phase} reuses {reused:.0f} of {length:.0f} tokens and takes {show(ms)} ms"
    return Part(cell.phase, text=f"{text} ({len(used)} trials, {rejected} of them rejected as misses)", cells=(str(cell),), n=len(used))
