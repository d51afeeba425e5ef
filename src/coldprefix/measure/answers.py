"""Does a prompt that was partly reused get the answer of a cold one? Once per cell, outside the clock.

Counts say how much was reused, not whether it was the right thing: a cache that gives wrong keys and values with right counts makes fast
hits that are worth nothing (llama.cpp's --cache-reuse does that to some models).
"""

from __future__ import annotations

from typing import Any

from coldprefix.engines.contract import Session
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job, common_prefix
from coldprefix.measure.edits import load
from coldprefix.measure.prompts import draw_trial

# Of what another context before the same question makes. Seen: numerical noise (other shapes of the same computation) up to 0.013 of it,
# on llama.cpp in f16 and on vLLM on a CPU; a wrong context all of it.
TOLERANCE = 0.25


def distance(one: dict[int, float], other: dict[int, float]) -> float:
    """Largest difference of the log-probabilities of ``one``'s tokens; of a token that ``other`` does not name, at least so large."""
    least = min(other.values())
    return max(abs(value - other[token]) if token in other else max(0.0, value - least) for token, value in one.items())


def check_answers(session: Session, job: Job, process: int, number: int) -> dict[str, Any] | None:
    """Ask for the next token after a reuse, of a cold engine, and after another context before the same question.

    Args:
        number: of a trial that the process has not had.

    Returns:
        What was found, for the cell's record; None where nothing of the cell is reused, its history must not be touched, or the engine
        cannot say what follows or cannot be emptied.

    Raises:
        ColdprefixError: the answer after a reuse is not that of a cold engine.
    """
    kind = next((kind for kind in job.kinds if load(kind.state).shape(*kind.lengths.model_dump().values())[1]), None)
    if kind is None or job.protocol.content != "fresh" or job.protocol.max_rejected == 1:
        return None
    own, foreign = (
        draw_trial(kind.lengths, kind.state, job.model.vocabulary, job.protocol.seed, process, number + i, "fresh") for i in range(2)
    )
    shared = common_prefix(own.warm, own.query)
    session.complete(own.warm, 1, stream=False)
    after = session.next_token(own.query)
    if after is None or not _emptied(session):
        return None
    cold = session.next_token(own.query)
    session.reset()
    another = session.next_token([*foreign.query[:shared], *own.query[shared:]])
    session.reset()
    assert cold is not None and another is not None
    seen, scale = distance(cold.logprobs, after.logprobs), distance(cold.logprobs, another.logprobs)
    record = {
        "reused_tokens": after.cached_tokens,
        "cold_reused_tokens": cold.cached_tokens,
        "difference": seen,
        "of_another_context": scale,
    }
    if not after.cached_tokens or cold.cached_tokens or seen > TOLERANCE * scale:
        raise ColdprefixError(
            f"a prompt of which {after.cached_tokens} tokens were reused is not answered as by a cold engine ({cold.cached_tokens} reused): the "
            f"log-probabilities of the next token differ by up to {seen:.3g}; another context makes a difference of {scale:.3g}. After the "
            f"reuse: {_shown(after.logprobs)}; cold: {_shown(cold.logprobs)}"
        )
    return record


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
