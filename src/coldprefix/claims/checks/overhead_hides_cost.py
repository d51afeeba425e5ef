"""Can transport and harness hide what a miss costs?"""

from __future__ import annotations

import math

from pydantic import Field

from coldprefix.analysis.statistics import estimate
from coldprefix.claims.checks import Check
from coldprefix.claims.data import CellName, Data, Effect
from coldprefix.claims.parts import effect_of, missing_part
from coldprefix.claims.verdict import Outcome, Part, between, combine, show
from coldprefix.strict import Strict
from coldprefix.study.config import PhaseName


class Parameters(Strict):
    """What transport and harness add to a miss, against what the miss costs."""

    phase: PhaseName = "phase3a"
    variant: str = "main"
    configurations: tuple[str, ...] = ()
    hides_from_pct: float = Field(default=100, gt=0)


def overhead_hides_cost(p: Parameters, threshold: float, data: Data) -> Outcome:
    """client_ms of a miss in % of what the miss costs (miss minus hit TTFT): below the threshold it hides nothing, from
    `hides_from_pct` on it can. The interval is that of the extremes of both, so rather too wide."""
    parts = [_part(p, miss, threshold, data) for miss in data.cells([p.phase], p.variant, p.configurations, "miss")]
    return combine(parts, threshold, f"Transport and harness on {p.phase}, in % of what a miss costs there", "%")


def _part(p: Parameters, miss: CellName, threshold: float, data: Data) -> Part:
    samples = [data.sample(miss, "client_ms"), data.sample(miss, "ttft_ms")]
    samples.append(data.sample(miss.model_copy(update={"state": "hit"}), "ttft_ms"))
    if part := missing_part(miss.configuration, samples):
        return part
    client, after_miss, after_hit = (effect_of(estimate(s.groups)) for s in samples)
    ends = (client.low, client.high, after_miss.low, after_miss.high, after_hit.low, after_hit.high)
    client_low, client_high, miss_low, miss_high, hit_low, hit_high = (v for v in ends if v is not None)
    least, most, cost = miss_low - hit_high, miss_high - hit_low, after_miss.value - after_hit.value
    cells, n = (str(miss), samples[2].cell), len(samples[1].values) + len(samples[2].values)
    if least <= 0:
        why = f"in {miss.configuration} a miss costs {show(cost)} ms, not distinguishable from 0, so there is nothing to hide"
        return Part(miss.configuration, cells=cells, n=n, missing=why)
    quotients = [100 * a / b for a in (client_low, client_high) for b in (least, most)]
    effect = Effect(100 * client.value / cost, min(quotients), max(quotients))
    hidden = between(effect, p.hides_from_pct, math.inf)
    agrees = False if max(quotients) < threshold else True if hidden else None
    return Part(miss.configuration, agrees, effect, f"{show(client.value)} ms beside a cost of {show(cost)} ms", cells, n)


CHECK = Check(parameters=Parameters, unit="%", run=overhead_hides_cost)
