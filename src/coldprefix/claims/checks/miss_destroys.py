"""What a miss destroys: how much of the warm prompt the next warm-up must compute again."""

from __future__ import annotations

from coldprefix.claims.checks import Check
from coldprefix.claims.data import CellName, Data
from coldprefix.claims.parts import Phases, lost_part, ratio_of
from coldprefix.claims.verdict import Outcome, Part, combine, show, show_effect
from coldprefix.strict import Strict


class Parameters(Strict):
    """Warm-ups after misses, and after hits as the control."""

    phases: Phases
    variant: str = "main"
    configurations: tuple[str, ...] = ()


def miss_destroys(p: Parameters, threshold: float, data: Data) -> Outcome:
    """Share of what a re-warm reuses after a hit that it no longer reuses after a miss: at least the threshold, everywhere. Counts
    decide; how long either takes is told."""
    parts = [_part(miss, threshold, data) for miss in data.cells(p.phases, p.variant, p.configurations, "miss")]
    lead = f"Share of the warm prefix that a re-warm reuses after a hit and no longer after a miss ({p.variant})"
    return combine(parts, threshold, lead, "%")


def _part(miss: CellName, threshold: float, data: Data) -> Part:
    cells = [miss.model_copy(update={"state": state}) for state in ("miss", "hit")]
    after_miss, after_hit = (data.sample(cell, "rewarm_cached_tokens", of="warmup_prompt_tokens") for cell in cells)
    if not after_miss.n or not after_hit.n:
        missing = "; ".join(s.missing for s in (after_miss, after_hit) if s.missing)
        return Part(miss.phase, missing=missing)
    text = f"{miss.configuration}: the re-warm reuses {show(after_hit.median, '%')} of [A, B] after a hit, "
    text += f"{show(after_miss.median, '%')} after a miss"
    times = [data.sample(cell, "rewarm_ms") for cell in cells]
    if all(sample.n for sample in times):
        text += f", and takes {show_effect(ratio_of(*times), 'x')} as long ({show(times[0].median)} and {show(times[1].median)} ms)"
    return lost_part(miss.phase, after_miss, after_hit, threshold, text)


CHECK = Check(parameters=Parameters, unit="%", run=miss_destroys, counts=True)
