"""A metric after a miss over that after a hit, on each backend."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import polars as pl

from coldprefix.claims.checks import Check
from coldprefix.claims.data import Data
from coldprefix.claims.parts import Metric, Phases, median_of, ratio_part
from coldprefix.claims.verdict import Outcome, Part, combine, limits, show
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
        hit = miss.model_copy(update={"state": "hit"})
        part = ratio_part(miss.phase, data.sample(miss, p.metric), data.sample(hit, p.metric), limits(p.relation, threshold))
        parts.append(replace(part, text=""))
    extra = [_reuse_by_rewarm(p, phase, data) for phase in p.phases] if p.metric == "rewarm_ms" else []
    lead = f"Median {p.metric} after a miss over that after a hit ({p.variant})"
    return combine(parts, threshold, lead, "x", extra=extra)


def _reuse_by_rewarm(p: Parameters, phase: str, data: Data) -> Part:
    """Why a re-warm takes as long as it does: the share that it reused after either state. Empty if that is not known."""
    shares = []
    for state in ("hit", "miss"):
        own = pl.concat([data.counted(c).filter("valid") for c in data.cells([phase], p.variant, p.configurations, state)])
        shares.append(median_of(100 * own["rewarm_cached_tokens"] / own["warmup_prompt_tokens"]))
    after_hit, after_miss = shares
    if after_hit is None or after_miss is None:
        return Part(phase)
    return Part(
        phase, text=f"on {phase} the re-warm reused {show(after_hit, '%')} of [A, B] after a hit and {show(after_miss, '%')} after a miss"
    )


CHECK = Check(parameters=Parameters, unit="x", run=miss_over_hit)
