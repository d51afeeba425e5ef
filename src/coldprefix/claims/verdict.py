"""From parts to a verdict.

A test looks at *parts*, for example one phase each. A part agrees with the claim or contradicts it only if its whole interval lies on one
side of the threshold; otherwise, and where a measurement is missing, it leaves the claim open.

Where all of k parts must agree, each is judged by its 95 % interval: an error in one of them alone decides nothing. Where one of k is
enough (to refute a claim about all, or to support one about any), chance has k tries, and each is judged by its interval at
1 - 0.05 / k (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coldprefix.analysis.statistics import CONFIDENCE
from coldprefix.claims.effect import Effect, Judge
from coldprefix.claims.scope import Scope

Verdict = Literal["supported", "refuted", "contradicted here", "not decided"]
Relation = Literal["at_least", "at_most", "within", "equals"]


@dataclass(frozen=True)
class Part:
    """What one cell or one pair of cells says.

    Attributes:
        label: by which parts are put together in the finding: a phase.
        agrees: with the claim, None leaves it open; or how that is judged of the effect, whose interval depends on the number of parts.
        text: added to the finding.
        missing: what was not measured; then the part leaves the claim open.
    """

    label: str
    agrees: bool | Judge | None = None
    effect: Effect | None = None
    text: str = ""
    cells: tuple[str, ...] = ()
    n: int = 0
    missing: str | None = None

    def judged(self, confidence: float = CONFIDENCE) -> bool | None:
        """Does it agree with the claim, by its interval at this confidence?"""
        if not callable(self.agrees):
            return self.agrees
        return None if self.effect is None or self.missing else self.agrees(self.effect.with_confidence(confidence))


@dataclass(frozen=True)
class Outcome:
    """The verdict on a claim, with what it was made from: see the columns of table.CLAIMS."""

    verdict: Verdict
    effect: Effect | None
    finding: str
    rows: tuple[str, ...]
    n: int
    scope: Scope | None = None  # None: that of the cells in ``rows``


def limits(relation: Relation, threshold: float) -> tuple[float, float]:
    """Where an effect must lie; `within` is of ratios: between 1/threshold and threshold."""
    return {
        "at_least": (threshold, math.inf),
        "at_most": (-math.inf, threshold),
        "within": (1 / threshold if threshold else 0.0, threshold),
        "equals": (threshold, threshold),
    }[relation]


def verdict_of(parts: Sequence[Part], every: bool) -> Verdict:
    """Of a claim about every part, one part that contradicts is enough to refute it; of one about any part, one that agrees
    is enough to support it."""
    if not parts:
        return "not decided"
    alone = [part.judged(1 - (1 - CONFIDENCE) / len(parts)) for part in parts]
    together = [part.judged() for part in parts]
    enough, wanted = (False, True) if every else (True, False)
    verdicts: dict[bool, Verdict] = {True: "supported", False: "refuted"}
    if all(one is wanted for one in together):
        return verdicts[wanted]
    return verdicts[enough] if any(one is enough for one in alone) else "not decided"


def combine(parts: Sequence[Part], threshold: float, lead: str, unit: str, every: bool = True, extra: Sequence[Part] = ()) -> Outcome:
    """The verdict of several parts. The effect is the deciding one nearest to the threshold: the weakest evidence, not the best.

    Args:
        lead: begins the finding; the ranges of the effects by label follow.
        extra: what is told, and whose rows are named, but decides nothing.
    """
    verdict = verdict_of(parts, every)
    wanted = {"supported": True, "refuted": False}.get(verdict)
    deciding = [p.effect for p in parts if p.effect and p.judged() is wanted] or [p.effect for p in parts if p.effect]
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
    """A number for people: three digits, whole above 100."""
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}" if unit else text


def _range(values: Sequence[float], unit: str) -> str:
    low, high = show(min(values)), show(max(values))
    return (low if low == high else f"{low} to {high}") + f" {unit}"


def show_effect(effect: Effect | None, unit: str) -> str:
    """E.g. "1.02 [0.98, 1.05] x"."""
    if effect is None:
        return "-"
    interval = "" if effect.low is None or effect.high is None else f" [{show(effect.low)}, {show(effect.high)}]"
    return f"{show(effect.value)}{interval} {unit}"
