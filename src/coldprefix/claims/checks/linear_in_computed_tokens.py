"""Is TTFT a straight line in the tokens that are computed?"""

from __future__ import annotations

import math

import polars as pl
from pydantic import Field

from coldprefix.analysis import linear
from coldprefix.analysis.linear import FEWEST_LENGTHS, Fit
from coldprefix.analysis.statistics import Estimate, student
from coldprefix.claims.checks import Check
from coldprefix.claims.data import Data, needed
from coldprefix.claims.effect import Effect, between, measured
from coldprefix.claims.parts import Phases, median_of
from coldprefix.claims.verdict import Outcome, Part, combine, show, show_effect
from coldprefix.strict import Strict
from coldprefix.study.config import State


class Parameters(Strict):
    """A straight line in each engine process, from lengths that it measured in random order."""

    phases: Phases
    variant: str = "scaling"
    state: State = "miss"
    cached: State = "hit"
    from_tokens: int = Field(default=100, ge=0)
    largest_deviation_pct: float = Field(default=10, gt=0)


def linear_in_computed_tokens(p: Parameters, threshold: float, data: Data) -> Outcome:
    """How far the middle of the range lies off the chord between its ends, in % of it, in every phase.

    An equivalence test (Schuirmann 1987; with the 95 % instead of the 90 % interval): a phase agrees only if the whole interval of its bend
    lies within plus or minus the threshold, and that of each length's deviation from the line within `largest_deviation_pct`. It
    contradicts only if the whole interval of its bend lies beyond. Noise widens intervals, so it decides nothing.
    """
    parts = [_part(p, phase, threshold, data) for phase in p.phases]
    return combine(parts, threshold, "Bend of TTFT against the tokens computed, from the chord at mid-range", "%")


def _part(p: Parameters, phase: str, threshold: float, data: Data) -> Part:
    used, rows = _trials(p, phase, p.state, data)
    here = f"{phase}/{p.variant}/*/{p.state}"
    found = linear.fit(used, from_tokens=p.from_tokens)
    if found is None:
        lengths = used.filter(pl.col("stream_evaluated_tokens") >= p.from_tokens)["stream_evaluated_tokens"].n_unique()
        had = f"valid trials of {lengths} lengths from {p.from_tokens} tokens on" if used.height else "no valid trial"
        return Part(phase, missing=f"{here} has {had}; a bend needs {FEWEST_LENGTHS} in each engine process")
    bend = measured(lambda confidence: student(found.bend_pct.units, found.bend_pct.n, confidence=confidence))
    assert bend is not None
    short = (
        None
        if bend.low is not None
        else f"{here} has {found.bend_pct.processes} engine processes and {found.bend_pct.n} trials; {needed()}"
    )
    straight = all(_within(own, p.largest_deviation_pct) for own in found.deviations_pct.values())

    def agrees(effect: Effect) -> bool | None:
        equivalent = between(effect, -threshold, threshold)
        return None if equivalent and not straight else equivalent

    text = _text(p, found) + _cached(p, phase, data)
    return Part(phase, agrees, bend, text, rows, used.height, short)


def _trials(p: Parameters, phase: str, state: str, data: Data) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Valid trials of all lengths of a state, and the names of their cells."""
    cells = data.cells([phase], p.variant, [], state)
    used = pl.concat([data.counted(cell) for cell in cells]).filter("valid").drop_nulls(["ttft_ms", "stream_evaluated_tokens"])
    return used, tuple(f"{phase}/{p.variant}/{c}/{state}" for c in used["configuration"].unique(maintain_order=True))


def _within(deviation: Estimate, limit_pct: float) -> bool:
    return deviation.low is not None and deviation.high is not None and -limit_pct <= deviation.low and deviation.high <= limit_pct


def _text(p: Parameters, found: Fit) -> str:
    text = f"{_told(found.slope)} ms a token computed"
    worst, off = max(found.deviations_pct.items(), key=lambda each: abs(each[1].value or 0.0))
    text += f", largest deviation of a length {_told(off)} % at {worst} tokens"
    unsure = [str(length) for length, own in found.deviations_pct.items() if not _within(own, p.largest_deviation_pct)]
    return text + (f", not certainly within {show(p.largest_deviation_pct)} % at {', '.join(unsure)} tokens" if unsure else "")


def _cached(p: Parameters, phase: str, data: Data) -> str:
    """What a cached token costs: hits of the same lengths compute as many tokens each, after more and more cached ones."""
    hits = linear.equally_computed(_trials(p, phase, p.cached, data)[0])
    found = linear.fit(hits, tokens="stream_cached_tokens", from_tokens=p.from_tokens)
    if found is None:
        return ""
    computed = median_of(hits["stream_evaluated_tokens"])
    return f", {_told(found.slope)} ms a token reused (hits that compute {computed:.0f})"


def _told(found: Estimate) -> str:
    value = math.nan if found.value is None else found.value
    return show_effect(Effect(value, found.low, found.high), "").strip()


CHECK = Check(parameters=Parameters, unit="%", run=linear_in_computed_tokens)
