"""How many tokens the engine says it reused in one step of the trial."""

from __future__ import annotations

from typing import Literal

from coldprefix.claims.checks import Check
from coldprefix.claims.data import Data
from coldprefix.claims.effect import inside
from coldprefix.claims.parts import Phases, sample_part
from coldprefix.claims.verdict import Outcome, combine, limits
from coldprefix.strict import Strict
from coldprefix.study.config import State


class Parameters(Strict):
    """Tokens that the engine reports as reused in a step of the trial."""

    phases: Phases
    variant: str = "main"
    configurations: tuple[str, ...] = ()
    state: State
    step: Literal["warmup", "query", "rewarm", "stream"]
    relation: Literal["at_least", "at_most", "equals"]


def reuse(p: Parameters, threshold: float, data: Data) -> Outcome:
    """Median of the tokens that the engine says it reused in one step. Rejected trials count: validity is defined by this reuse."""
    parts = []
    for cell in data.cells(p.phases, p.variant, p.configurations, p.state):
        found = data.sample(cell, f"{p.step}_cached_tokens", unverified=True)
        parts.append(sample_part(cell.phase, found, inside(*limits(p.relation, threshold))))
    lead = f"Tokens that the {p.step} of a {p.state} reused, rejected trials included ({p.variant})"
    return combine(parts, threshold, lead, "tokens")


CHECK = Check(parameters=Parameters, unit="tokens", run=reuse, counts=True)
