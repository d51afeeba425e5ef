"""From parts to a verdict.

A test looks at *parts*, for example one phase each. A part agrees with the claim or contradicts it only if its whole 95 % interval
lies on one side of the threshold; otherwise, and where a measurement is missing, it leaves the claim open. Intervals are per part,
not corrected for the number of parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coldprefix.claims.data import Effect

Verdict = Literal["supported", "refuted", "not decided"]
Relation = Literal["at_least", "at_most", "within", "equals"]


@dataclass(frozen=True)
class Part:
    """What one cell or one pair of cells says.

    Attributes:
        label: by which parts are put together in the finding: a phase.
        agrees: with the claim; None leaves it open.
        text: added to the finding.
        missing: what was not measured; then the part leaves the claim open.
    """

    label: str
    agrees: bool | None = None
    effect: Effect | None = None
    text: str = ""
    cells: tuple[str, ...] = ()
    n: int = 0
    missing: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The verdict on a claim, with what it was made from: see the columns of table.CLAIMS."""

    verdict: Verdict
    effect: Effect | None
    finding: str
    rows: tuple[str, ...]
    n: int


def between(effect: Effect, lowest: float, highest: float) -> bool | None:
    """Does the whole interval lie in [lowest, highest] (True), or outside (False)? None: it straddles an end, or is unknown."""
    if effect.low is None or effect.high is None:
        return None
    if lowest <= effect.low and effect.high <= highest:
        return True
    return False if effect.high < lowest or effect.low > highest else None


def limits(relation: Relation, threshold: float) -> tuple[float, float]:
    """Where an effect must lie; `within` is of ratios: between 1/threshold and threshold."""
    return {
        "at_least": (threshold, math.inf),
        "at_most": (-math.inf, threshold),
        "within": (1 / threshold if threshold else 0.0, threshold),
        "equals": (threshold, threshold),
    }[relation]


def verdict_of(agrees: Sequence[bool | None], every: bool) -> Verdict:
    """Of a claim about every part, one part that contradicts is enough to refute it; of one about any part, one that agrees
    is enough to support it."""
    if agrees and (all(a is True for a in agrees) if every else any(a is True for a in agrees)):
        return "supported"
    if agrees and (any(a is False for a in agrees) if every else all(a is False for a in agrees)):
        return "refuted"
    return "not decided"


def combine(parts: Sequence[Part], threshold: float, lead: str, unit: str, every: bool = True, extra: Sequence[Part] = ()) -> Outcome:
    """The verdict of several parts. The effect is the deciding one nearest to the threshold: the weakest evidence, not the best.

    Args:
        lead: begins the finding; the ranges of the effects by label follow.
        extra: what is told, and whose rows are named, but decides nothing.
    """
    verdict = verdict_of([part.agrees for part in parts], every)
    wanted = {"supported": True, "refuted": False, "not decided": None}[verdict]
    deciding = [p.effect for p in parts if p.effect and p.agrees is wanted] or [p.effect for p in parts if p.effect]
    effect = min(deciding, key=lambda e: abs(e.value - threshold)) if deciding else None
    told = []
    for label in dict.fromkeys(part.label for part in parts if part.effect):
        own = [part for part in parts if part.label == label and part.effect]
        texts = dict.fromkeys(part.text for part in own if part.text)
        told.append(f"{label} {_range([p.effect.value for p in own if p.effect], unit)}" + (f" ({'; '.join(texts)})" if texts else ""))
    missing = list(dict.fromkeys(part.missing for part in parts if part.missing))
    sentences = [f"{lead}: {', '.join(told)}"] if told else []
    sentences += [part.text for part in extra if part.text]
    finding = "; ".join(sentences)
    if missing:
        finding += ("; missing: " if finding else "Missing: ") + "; ".join(missing)
    used = [*parts, *extra]
    return Outcome(verdict, effect, finding + ".", tuple(dict.fromkeys(c for p in used for c in p.cells)), sum(p.n for p in used))


def show(value: float, unit: str = "") -> str:
    """A number for people: three digits, more for R2, whole above 100."""
    text = f"{value:.4f}" if unit == "R2" else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text if unit in ("", "R2") else f"{text} {unit}"


def _range(values: Sequence[float], unit: str) -> str:
    low, high = show(min(values)), show(max(values))
    if unit == "R2":
        low, high = show(min(values), unit), show(max(values), unit)
    return (low if low == high else f"{low} to {high}") + ("" if unit == "R2" else f" {unit}")


def show_effect(effect: Effect | None, unit: str) -> str:
    """E.g. "1.02 [0.98, 1.05] x"."""
    if effect is None:
        return "-"
    inside = "R2" if unit == "R2" else ""
    interval = "" if effect.low is None or effect.high is None else f" [{show(effect.low, inside)}, {show(effect.high, inside)}]"
    return f"{show(effect.value, inside)}{interval} {unit}"
