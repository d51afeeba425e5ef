"""Do slots that share a context evict each other's prefix?"""

from __future__ import annotations

from coldprefix.claims.checks import Check
from coldprefix.claims.data import CellName, Data
from coldprefix.claims.parts import lost_part, missing_of, ratio_of
from coldprefix.claims.verdict import Outcome, Part, combine, show, show_effect
from coldprefix.strict import Strict
from coldprefix.study.config import EnginePhase

REFUSED = "the engine refused"  # how measure/protocol.py begins the rejection of a request that an engine would not take


class Parameters(Strict):
    """Slots that share a context, against a control with room for each."""

    phase: EnginePhase = "phase3a"
    configuration: str = "A256_B512"
    shared: str = "slots/unified_1024"
    control: str = "slots/split_1024"
    refused: str = "slots/split_256"


def slots_evict_prefix(p: Parameters, threshold: float, data: Data) -> Outcome:
    """Share of what the re-warm reuses in the control that it no longer reuses where slots share the context: at least the threshold."""
    shared, control, refused = (
        CellName(phase=p.phase, variant=v, configuration=p.configuration, state="miss") for v in (p.shared, p.control, p.refused)
    )
    part = _part(shared, control, threshold, data)
    extra = [_refusals(data, cell) for cell in (refused, shared, control)]
    return combine([part], threshold, "Share of the warm prefix that is lost where slots share the context", "%", extra=extra)


def _part(shared: CellName, control: CellName, threshold: float, data: Data) -> Part:
    reused = [data.sample(cell, "rewarm_cached_tokens", of="warmup_prompt_tokens") for cell in (shared, control)]
    if not all(sample.n for sample in reused):
        return Part(shared.phase, missing=missing_of(reused))
    counts = [data.sample(cell, "rewarm_cached_tokens") for cell in (shared, control)]
    text = f"the re-warm reuses {show(counts[0].median)} tokens, {show(counts[1].median)} in the control with room for all"
    times = [data.sample(cell, "rewarm_ms") for cell in (shared, control)]
    if all(sample.n for sample in times):
        text += f" and takes {show_effect(ratio_of(*times), 'x')} as long ({show(times[0].median)} and {show(times[1].median)} ms)"
    return lost_part(shared.phase, reused[0], reused[1], threshold, text)


def _refusals(data: Data, cell: CellName) -> Part:
    """How often the engine would not take the prompt at all; empty if never."""
    counted = data.counted(cell)
    refusals = int(counted["rejection"].str.starts_with(REFUSED).sum())
    if not refusals:
        return Part("refused")
    text = f"with {cell.variant} the engine refused the prompt in {refusals} of {len(counted)} trials"
    return Part("refused", text=text, cells=(str(cell),), n=len(counted))


CHECK = Check(parameters=Parameters, unit="%", run=slots_evict_prefix, counts=True)
