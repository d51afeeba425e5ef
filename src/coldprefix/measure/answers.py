"""Does a prompt that was partly reused get the answer of a cold one? Once per cell and state, outside the clock.

Counts say how much was reused, not whether it was the right thing: a cache that gives wrong keys and values with right counts makes fast
hits that are worth nothing (llama.cpp's --cache-reuse does that to some models).
"""

from __future__ import annotations

from typing import Any

from coldprefix.engines.contract import Session
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job, Kind
from coldprefix.measure.edits import load
from coldprefix.measure.prompts import draw_trial

# Of what another context before the same rest makes. Seen: numerical noise (other shapes of the same computation) up to 0.061 of it on ten
# architectures in f16; moved runs 0.17 (LFM2, below this line) to 0.35; the wrong window of a small cache 1.3. Quantised weights are noisier.
TOLERANCE = 0.25


NOTHING: dict[str, Any] = {}  # what there is to say of a state of which nothing is reused


def distance(one: dict[int, float], other: dict[int, float]) -> float:
    """Largest difference of the log-probabilities of ``one``'s tokens; of a token that ``other`` does not name, at least so large."""
    least = min(other.values())
    return max(abs(value - other[token]) if token in other else max(0.0, value - least) for token, value in one.items())


def check_answers(session: Session, job: Job, process: int, number: int) -> list[dict[str, Any]] | None:
    """Ask, once for each state of the cell, for the next token after a reuse, of a cold engine, and after another context before the same
    rest of the prompt.

    Args:
        number: of a trial that the process has not had; so are those after it.

    Returns:
        What was found, for the cell's record; None where the cell's history must not be touched, or the engine cannot say what follows or
        cannot be emptied.

    Raises:
        ColdprefixError: an answer after a reuse is not that of a cold engine.
    """
    if job.protocol.content != "fresh" or job.protocol.max_rejected == 1:
        return None
    kinds = {kind.state: kind for kind in reversed(job.kinds) if load(kind.state).warmed}
    found = []
    for place, kind in enumerate(kinds.values()):
        record = _check(session, job, kind, process, number + 2 * place)
        if record is None:
            return None
        found += [record] if record else []
    return found


def _check(session: Session, job: Job, kind: Kind, process: int, number: int) -> dict[str, Any] | None:
    """The record of one state; NOTHING where by the engine's rule nothing is reused; None where the engine cannot be asked."""
    own, foreign = (
        draw_trial(kind.lengths, kind.state, job.model.vocabulary, job.protocol.seed, process, number + i, "fresh") for i in range(2)
    )
    memory = session.memory()
    for sent in (own.warm, *own.before_query):
        memory.ask(session.seen(sent), 1)
    if not memory.ask(session.seen(own.query), 1).most and not memory.ask(session.seen(own.stream), 1).most:
        return NOTHING
    for sent in (own.warm, *own.before_query):
        session.complete(sent, 1, stream=False)
    asked = own.query
    after = session.next_token(asked)
    if after is not None and not after.cached_tokens:  # a window's or a state's first query may only make what the second one finds
        asked = own.stream
        after = session.next_token(asked)
    if after is None or not _emptied(session):
        return None
    record: dict[str, Any] = {"state": kind.state, "configuration": kind.configuration, "reused_tokens": after.cached_tokens}
    if not after.cached_tokens:
        return record | dict.fromkeys(("cold_reused_tokens", "difference", "of_another_context"))
    cold = session.next_token(asked)
    session.reset()
    another = session.next_token([*foreign.query[: after.cached_tokens], *asked[after.cached_tokens :]])
    session.reset()
    assert cold is not None and another is not None
    seen, scale = distance(cold.logprobs, after.logprobs), distance(cold.logprobs, another.logprobs)
    if cold.cached_tokens or (seen > TOLERANCE * scale and job.protocol.answers == "agree"):
        raise ColdprefixError(
            f"{kind.state} {kind.configuration}: a prompt of which {after.cached_tokens} tokens were reused is not answered as by a cold engine "
            f"({cold.cached_tokens} reused): the log-probabilities of the next token differ by up to {seen:.3g}; another context makes a "
            f"difference of {scale:.3g}. After the reuse: {_shown(after.logprobs)}; cold: {_shown(cold.logprobs)}"
        )
    return record | {"cold_reused_tokens": cold.cached_tokens, "difference": seen, "of_another_context": scale}


def _emptied(session: Session) -> bool:
    """Some caches cannot be emptied: a host-memory tier."""
    try:
        session.reset()
    except ColdprefixError:
        return False
    return True


def _shown(logprobs: dict[int, float]) -> str:
    best = sorted(logprobs.items(), key=lambda item: -item[1])[:5]
    return ", ".join(f"token {token} {value:.3f}" for token, value in best)
