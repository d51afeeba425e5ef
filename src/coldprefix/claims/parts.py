"""What several tests say of a cell or of a pair of cells, and the types of the parameters that they have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import Field

from coldprefix.analysis.statistics import Estimate, degradation_pct
from coldprefix.claims.data import CellName, Data, Effect, Sample
from coldprefix.claims.verdict import Part, between, show
from coldprefix.data.tables import METRICS, TRIALS
from coldprefix.strict import OneOf
from coldprefix.study.config import PhaseName

Metric = Annotated[str, OneOf("metric", lambda: [m for m in METRICS if m in TRIALS] + [c for c in TRIALS if c.endswith("_tokens")])]
Phases = Annotated[tuple[PhaseName, ...], Field(min_length=1)]


def missing_part(label: str, samples: Iterable[Sample]) -> Part | None:
    """The part that says which of these samples are missing; None if all are there."""
    missing = [s.missing for s in samples if s.missing]
    return Part(label, missing="; ".join(missing)) if missing else None


def median_of(values: pl.Series) -> float | None:
    """Median of what is known; None if nothing is."""
    known = values.drop_nulls().cast(pl.Float64).to_numpy()
    return float(np.median(known)) if len(known) else None


def effect_of(found: Estimate) -> Effect:
    """A median with its interval, as an effect."""
    assert found.median is not None
    return Effect(found.median, found.ci_low, found.ci_high)


def ratio_of(over: Sample, under: Sample) -> Effect | None:
    """Median over median with its interval; None where a value under the line is not positive."""
    if (under.values <= 0).any():
        return None
    found = degradation_pct(under.groups, over.groups)
    return effect_of(found).map(lambda pct: 1 + pct / 100)


def ratio_part(label: str, over: Sample, under: Sample, inside: tuple[float, float], text: str = "") -> Part:
    """The part of two samples whose ratio must lie ``inside``; without a ``text`` it tells both medians."""
    if part := missing_part(label, [over, under]):
        return part
    effect = ratio_of(over, under)
    if effect is None:
        return Part(label, missing=f"{under.cell} holds values that are not positive, so there is no ratio")
    text = text or f"medians {show(over.median)} and {show(under.median)}"
    n = len(over.values) + len(under.values)
    return Part(label, between(effect, *inside), effect, text, (over.cell, under.cell), n)


def repeated_note(data: Data, cell: CellName) -> Part:
    """What repeated prompts do: the "misses" after the first, most of them rejected as misses. Empty if not measured."""
    used = data.counted(cell).filter(pl.col("trial") > 0).drop_nulls(["query_ms", "query_cached_tokens"])
    if used.is_empty():
        return Part(cell.phase)
    reused, length, ms = (median_of(used[c]) or 0.0 for c in ("query_cached_tokens", "query_prompt_tokens", "query_ms"))
    rejected = used["query_rejection"].is_not_null().sum()
    text = f"with repeated prompts a 'miss' of {cell.phase} reuses {reused:.0f} of {length:.0f} tokens and takes {show(ms)} ms"
    return Part(cell.phase, text=f"{text} ({len(used)} trials, {rejected} of them rejected as misses)", cells=(str(cell),), n=len(used))
