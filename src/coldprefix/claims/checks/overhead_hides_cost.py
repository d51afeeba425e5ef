"""Can transport and harness hide what a miss costs?"""

from __future__ import annotations

from pydantic import Field

from coldprefix.analysis import statistics
from coldprefix.claims.checks import Check
from coldprefix.claims.data import CellName, Data
from coldprefix.claims.effect import Effect, combined, measured
from coldprefix.claims.parts import missing_of, no_interval
from coldprefix.claims.verdict import Outcome, Part, combine, show, show_effect
from coldprefix.strict import Strict
from coldprefix.study.config import EnginePhase


class Parameters(Strict):
    """What transport and harness add to a miss, against what the miss costs."""

    phase: EnginePhase = "phase3a"
    variant: str = "main"
    configurations: tuple[str, ...] = ()
    hides_from_pct: float = Field(default=100, gt=0)


def overhead_hides_cost(p: Parameters, threshold: float, data: Data) -> Outcome:
    """client_ms of a miss in % of what the miss costs (TTFT of a miss minus that of a hit in the same process): below the threshold it
    hides nothing, from `hides_from_pct` on it can. The interval is that of the extremes of both, so rather too wide."""
    parts = [_part(p, miss, threshold, data) for miss in data.cells([p.phase], p.variant, p.configurations, "miss")]
    return combine(parts, threshold, f"Transport and harness on {p.phase}, in % of what a miss costs there", "%")


def _part(p: Parameters, miss: CellName, threshold: float, data: Data) -> Part:
    client, slow = data.sample(miss, "client_ms"), data.sample(miss, "ttft_ms")
    fast = data.sample(miss.model_copy(update={"state": "hit"}), "ttft_ms")
    added = client.effect
    cost = measured(lambda confidence: statistics.difference(slow.trials, fast.trials, confidence=confidence))
    cells, n = (slow.cell, fast.cell), slow.n + fast.n
    if added is None or cost is None:
        missing = missing_of([client, slow, fast])
        return Part(miss.configuration, missing=missing or f"{slow.cell} and {fast.cell} were not measured in the same processes")
    if (cost.value if cost.low is None else cost.low) <= 0:
        why = f"in {miss.configuration} a miss costs {show_effect(cost, 'ms')}, not distinguishable from 0, so there is nothing to hide"
        return Part(miss.configuration, cells=cells, n=n, missing=why)
    effect = combined((added, cost), lambda one, other: 100 * one / other)
    text = f"{show(added.value)} ms beside a cost of {show_effect(cost, 'ms')}"
    missing = missing_of([client, slow, fast]) or no_interval(cost, *cells)

    def agrees(found: Effect) -> bool | None:
        if found.low is None or found.high is None:
            return None
        return False if found.high < threshold else True if found.low >= p.hides_from_pct else None

    return Part(miss.configuration, agrees, effect, text, cells, n, missing)


CHECK = Check(parameters=Parameters, unit="%", run=overhead_hides_cost)
