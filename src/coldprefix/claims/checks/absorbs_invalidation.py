"""Does a cache absorb invalidation, so that a miss takes no longer than a hit?"""

from __future__ import annotations

from coldprefix.analysis.statistics import degradation_pct
from coldprefix.claims.checks import Check
from coldprefix.claims.data import CellName, Data
from coldprefix.claims.parts import Phases, effect_of, missing_part, repeated_note
from coldprefix.claims.verdict import Outcome, Part, between, combine
from coldprefix.strict import Strict


class Parameters(Strict):
    """TTFT of a miss against that of a hit."""

    phases: Phases
    variant: str = "main"
    configurations: tuple[str, ...] = ()
    repeated: str = "confound/repeated"
    repeated_configuration: str = "A512_B256"


def absorbs_invalidation(p: Parameters, threshold: float, data: Data) -> Outcome:
    """TTFT degradation of verified misses within plus or minus the threshold, in every phase and configuration."""
    parts = []
    for miss in data.cells(p.phases, p.variant, p.configurations, "miss"):
        samples = data.sample(miss.model_copy(update={"state": "hit"}), "ttft_ms"), data.sample(miss, "ttft_ms")
        if part := missing_part(miss.phase, samples):
            parts.append(part)
            continue
        effect = effect_of(degradation_pct(samples[0].groups, samples[1].groups))
        n = len(samples[0].values) + len(samples[1].values)
        parts.append(Part(miss.phase, between(effect, -threshold, threshold), effect, "", (samples[0].cell, samples[1].cell), n))
    again = [CellName(phase=phase, variant=p.repeated, configuration=p.repeated_configuration, state="miss") for phase in p.phases]
    extra = [repeated_note(data, cell) for cell in again]
    return combine(parts, threshold, f"TTFT of a verified miss over a hit, minus 1 ({p.variant})", "%", extra=extra)


CHECK = Check(parameters=Parameters, unit="%", run=absorbs_invalidation)
