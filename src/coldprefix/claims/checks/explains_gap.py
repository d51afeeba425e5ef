"""Does a condition make misses as much slower as one backend was than another?"""

from __future__ import annotations

import math

from coldprefix.claims.checks import Check
from coldprefix.claims.data import CellName, Data
from coldprefix.claims.effect import inside
from coldprefix.claims.parts import Phases, ratio_of, ratio_part
from coldprefix.claims.verdict import Outcome, combine, show, show_effect
from coldprefix.strict import Strict


class Parameters(Strict):
    """A condition that would have to make misses slower."""

    phases: Phases
    configuration: str
    slow: str
    fast: str
    show_in_force: str | None = None


def explains_gap(p: Parameters, threshold: float, data: Data) -> Outcome:
    """Miss TTFT in the variant `slow` over that in `fast`: is it at least the threshold in any phase?"""
    parts = []
    for phase in p.phases:
        cells = [CellName(phase=phase, variant=v, configuration=p.configuration, state="miss") for v in (p.slow, p.fast)]
        over, under = (data.sample(cell, "ttft_ms") for cell in cells)
        text = f"{show(over.median)} and {show(under.median)} ms" + _beside(p, cells, data) if over.n and under.n else ""
        parts.append(ratio_part(phase, over, under, inside(threshold, math.inf), text))
    lead = f"Miss TTFT with {p.slow} over that with {p.fast}, which were measured in different jobs"
    return combine(parts, threshold, lead, "x", every=False)


def _beside(p: Parameters, cells: list[CellName], data: Data) -> str:
    """What else differs between the two cells, and what should not: tokens, the hits, and a setting in force."""
    text = ""
    for column, word in (("stream_evaluated_tokens", "computed"), ("stream_cached_tokens", "reused")):
        counts = [data.sample(cell, column) for cell in cells]
        if all(c.n for c in counts):
            text += f", {' and '.join(show(c.median) for c in counts)} tokens {word}"
    slow, fast = (data.sample(cell.model_copy(update={"state": "hit"}), "ttft_ms") for cell in cells)
    if not slow.missing and not fast.missing:
        text += f", hits {show_effect(ratio_of(slow, fast), 'x')}"
    if p.show_in_force:
        values = [data.in_force(cell.phase, [cell.variant], p.show_in_force) for cell in cells]
        if all(values):
            text += f", {p.show_in_force} in force {values[0][0][1]} and {values[1][0][1]}"
    return text


CHECK = Check(parameters=Parameters, unit="x", run=explains_gap)
