"""A metric after a miss over that after a hit, on each backend."""

from __future__ import annotations

from typing import Literal

from coldprefix.claims.checks import Check
from coldprefix.claims.data import Data
from coldprefix.claims.effect import inside
from coldprefix.claims.parts import Metric, Phases, ratio_part
from coldprefix.claims.verdict import Outcome, combine, limits
from coldprefix.strict import Strict


class Parameters(Strict):
    """A metric after misses over that after hits, per phase and configuration."""

    metric: Metric = "ttft_ms"
    phases: Phases
    variant: str = "main"
    configurations: tuple[str, ...] = ()
    relation: Literal["at_least", "at_most", "within"] = "at_least"


def miss_over_hit(p: Parameters, threshold: float, data: Data) -> Outcome:
    """Median of `metric` in miss trials over that in hit trials, in every phase and configuration."""
    parts = []
    for miss in data.cells(p.phases, p.variant, p.configurations, "miss"):
        over, under = (data.sample(miss.model_copy(update={"state": state}), p.metric) for state in ("miss", "hit"))
        parts.append(ratio_part(miss.phase, over, under, inside(*limits(p.relation, threshold))))
    return combine(parts, threshold, f"Median {p.metric} after a miss over that after a hit ({p.variant})", "x")


CHECK = Check(parameters=Parameters, unit="x", run=miss_over_hit)
