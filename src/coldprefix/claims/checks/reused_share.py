"""What share of a prompt the engine says it reused in one step of the trial."""

from __future__ import annotations

from typing import Literal

from coldprefix.claims.checks import Check
from coldprefix.claims.data import CellName, Data
from coldprefix.claims.effect import inside
from coldprefix.claims.parts import Phases, median_of, sample_part
from coldprefix.claims.verdict import Outcome, Part, combine, limits, show
from coldprefix.strict import Strict
from coldprefix.study.config import State

# step: (columns of tables.TRIALS with what it reused, its length, and its time)
STEPS = {
    "query": ("query_cached_tokens", "query_prompt_tokens", "query_ms"),
    "stream": ("stream_cached_tokens", "query_prompt_tokens", "ttft_ms"),
    "rewarm": ("rewarm_cached_tokens", "warmup_prompt_tokens", "rewarm_ms"),
}


class Parameters(Strict):
    """A step of the trials of a state, in one variant."""

    phases: Phases
    variant: str = "main"
    configurations: tuple[str, ...] = ()
    state: State
    step: Literal["query", "stream", "rewarm"]
    relation: Literal["at_least", "at_most"]
    from_trial: int = 0
    beside: str | None = None


def reused_share(p: Parameters, threshold: float, data: Data) -> Outcome:
    """Reused tokens in % of the step's prompt, in every phase and configuration.

    Rejected trials count: a trial is valid because of this very reuse, so valid ones alone could not speak against it.
    """
    parts = []
    for cell in data.cells(p.phases, p.variant, p.configurations, p.state):
        reused, length, _ = STEPS[p.step]
        found = data.sample(cell, reused, of=length, unverified=True, from_trial=p.from_trial)
        parts.append(
            sample_part(cell.phase, found, inside(*limits(p.relation, threshold)), f"{cell.configuration}: {_counts(p, cell, data)}")
        )
    extra = [_beside(p, p.beside, cell, data) for cell in data.cells(p.phases, p.variant, p.configurations, p.state)] if p.beside else []
    which = f" from trial {p.from_trial + 1} on" if p.from_trial else ""
    lead = f"Share of its prompt that the {p.step} of a {p.state} reused{which}, rejected trials included ({p.variant})"
    return combine(parts, threshold, lead, "%", extra=extra)


def _counts(p: Parameters, cell: CellName, data: Data) -> str:
    """E.g. "279 of 280 tokens in 18 ms, 5 of 6 trials rejected"; the time is the last that is told."""
    reused, length, ms = STEPS[p.step]
    used = data.counted(cell).filter(data.counted(cell)["trial"] >= p.from_trial).drop_nulls([reused, length])
    if used.is_empty():
        return "not measured"
    part, whole, time = (median_of(used[column]) for column in (reused, length, ms))
    rejected = used["rejection"].is_not_null().sum()
    text = f"{part:.0f} of {whole:.0f} tokens" + (f" in {show(time)} ms" if time is not None else "")
    return text + (f", {rejected} of {len(used)} trials rejected" if rejected else "")


def _beside(p: Parameters, variant: str, cell: CellName, data: Data) -> Part:
    other = cell.model_copy(update={"variant": variant})
    if data.counted(other).is_empty():
        return Part(cell.phase)
    return Part(cell.phase, text=f"beside it, {other}: {_counts(p, other, data)}", cells=(str(other),))


CHECK = Check(parameters=Parameters, unit="%", run=reused_share, counts=True)
