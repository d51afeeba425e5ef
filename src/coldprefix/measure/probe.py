"""Does the engine reuse what its rule says? Tried at the lengths where the rule bends, before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from coldprefix.engines.contract import Session
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job
from coldprefix.measure.prompts import token_range

SHORT = 64  # a length that every context has room for
ADDED = 24  # tokens that are appended
SIGNS = ("forcing full prompt re-processing", "prefix caching")  # in an engine's log: why it reuses less
SEED = 20250114


def probe(session: Session, job: Job, context: int, log: Path) -> list[dict[str, Any]]:
    """Send prompts, continue them and edit them, and hold what the engine reuses against its rule.

    Args:
        context: most tokens that the engine takes.

    Returns:
        For each request {"asked", "prompt_tokens", "promised", "reused"}.

    Raises:
        ColdprefixError: the engine reused something else; shows both, and what its log says of it.
    """
    memory = session.memory()
    rng = np.random.default_rng(SEED)
    found = []
    for asked, prompt in _prompts(sorted(_lengths(memory.borders, context)), job.model.vocabulary, rng):
        promise = memory.ask(session.seen(prompt), 1)
        reused = session.complete(prompt, 1, stream=False).cached_tokens
        if reused is None:
            raise ColdprefixError("the engine does not report how many tokens it reuses, so no trial can be verified")
        if not promise.holds(reused):
            raise ColdprefixError(
                f"of a prompt of {len(prompt)} tokens ({asked}) {job.engine} ({job.interface}) reused {reused} tokens, by the rule of its cache it "
                f"reuses {promise}: coldprefix does not know this cache, so no trial could be verified.{_said(log)}"
            )
        found.append({"asked": asked, "prompt_tokens": len(prompt), "promised": str(promise), "reused": reused})
    return found


def _lengths(borders: tuple[int, ...], context: int) -> set[int]:
    """Both sides of each border, and more than all of them; less what is appended, all fit the context."""
    most = context - ADDED - 2
    near = {border + step for border in borders for step in (-1, 0, 1)} | {2 * max(borders, default=0) + 7}
    return {SHORT} | {length for length in near if 8 <= length <= most}


def _prompts(lengths: list[int], vocabulary: int, rng: np.random.Generator) -> Iterator[tuple[str, list[int]]]:
    """(what it is, token ids): for each length a new prompt, its continuation, and the same edit twice, in the middle and near the end."""
    tokens = token_range(vocabulary)
    firsts = iter(rng.permutation(len(tokens)))  # no two parts begin with the same token

    def part(length: int) -> list[int]:
        ids = rng.integers(tokens.start, tokens.stop, size=length)
        ids[0] = tokens.start + next(firsts)
        return [int(token) for token in ids]

    for length in lengths:
        for place, where in ((length // 2, "in the middle"), (length - 3, "near the end")):
            warm = part(length)
            yield f"{length} new tokens", warm
            if where == "in the middle":
                yield f"the same and {ADDED} more", warm + part(ADDED)
                yield f"the {length} tokens again, and {ADDED} others", warm + part(ADDED)
            for time in ("edited", "edited in another way")[: 2 if where == "in the middle" else 1]:
                yield f"the {length} tokens, {time} {where}", [*warm[:place], *part(1), *warm[place + 1 :]]


def _said(log: Path) -> str:
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if any(sign in line.lower() for sign in SIGNS)]
    except OSError:
        lines = []
    return f" Its log says: {lines[-1].strip()[:300]}" if lines else f" Its log: {log}"
