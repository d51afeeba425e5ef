"""Does a cache absorb invalidation, so that a miss takes no longer than a hit?"""

from __future__ import annotations

from dataclasses import replace

from coldprefix.claims.checks import Check
from coldprefix.claims.data import CellName, Data
from coldprefix.claims.effect import inside
from coldprefix.claims.parts import Phases, cost_text, ratio_part, repeated_note
from coldprefix.claims.verdict import Outcome, Part, combine
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
    parts = [_part(miss, threshold, data) for miss in data.cells(p.phases, p.variant, p.configurations, "miss")]
    again = [CellName(phase=phase, variant=p.repeated, configuration=p.repeated_configuration, state="miss") for phase in p.phases]
    extra = [repeated_note(data, cell) for cell in again]
    return combine(parts, threshold, f"TTFT of a verified miss over a hit, minus 1 ({p.variant})", "%", extra=extra)


def _part(miss: CellName, threshold: float, data: Data) -> Part:
    over, under = (data.sample(miss.model_copy(update={"state": state}), "ttft_ms") for state in ("miss", "hit"))
    part = ratio_part(miss.phase, over, under, inside(-threshold, threshold))
    if part.effect is None:
        return part
    text = f"{miss.configuration} {cost_text(over, under)}"
    return replace(part, effect=part.effect.map(lambda ratio: 100 * (ratio - 1)), text=text.strip())


CHECK = Check(parameters=Parameters, unit="%", run=absorbs_invalidation)
