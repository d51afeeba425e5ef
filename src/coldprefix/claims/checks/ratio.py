"""One cell over another: is the ratio of their medians as claimed?"""

from __future__ import annotations

from typing import Literal

from coldprefix.claims.checks import Check
from coldprefix.claims.data import CellName, Data
from coldprefix.claims.effect import inside
from coldprefix.claims.parts import Metric, ratio_part
from coldprefix.claims.verdict import Outcome, combine, limits
from coldprefix.strict import Strict


class Parameters(Strict):
    """Median of a metric in one cell over that in another."""

    metric: Metric = "ttft_ms"
    over: CellName
    under: CellName
    relation: Literal["at_least", "at_most", "within"]


def ratio(p: Parameters, threshold: float, data: Data) -> Outcome:
    """Median of `metric` in the cell `over`, divided by that in the cell `under`."""
    over, under = data.sample(p.over, p.metric), data.sample(p.under, p.metric)
    lead = f"{p.metric} of {p.over} over that of {p.under}"
    return combine([ratio_part("ratio", over, under, inside(*limits(p.relation, threshold)))], threshold, lead, "x")


CHECK = Check(parameters=Parameters, unit="x", run=ratio)
