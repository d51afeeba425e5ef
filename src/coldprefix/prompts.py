"""The prompts of a cell: token ids, drawn so that what an engine can reuse is known exactly.

A prompt has three parts, A, B and Q. The cache is warmed with [A, B]; a *hit* asks [A, B, Q], a *miss* asks [B, Q]. A trial
asks twice, once without and once with streaming. With fresh content no two prompts of a replicate share a first token
unless one is meant to extend the other, so a reuse that was not intended is 0 tokens, not "hardly any":

- the first tokens of A, B, Q and of the second query's edit are all different, over all trials of a replicate;
- the second query differs from the first at the first token that is not to be reused. A block pool (vLLM) keeps the first
  query's blocks, so the very same prompt would be a hit.

The draw depends on the study's seed, the lengths, the replicate and the trial, not on the backend or the state: all
backends get the same token ids, and a hit and a miss of the same trial share their text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coldprefix.errors import ColdprefixError

FIRST_TOKENS_PER_TRIAL = 5  # of A, B, Q, and of the second query's B and Q


@dataclass(frozen=True)
class TrialPrompts:
    """The prompts of one trial, as token ids.

    Attributes:
        warm: [A, B], which fills the cache.
        query: the first query.
        stream: the second query; equal to ``query`` with repeated content.
        shared: leading tokens that the queries share with ``warm``: A + B for a hit, 0 for a miss.
    """

    warm: list[int]
    query: list[int]
    stream: list[int]
    shared: int


def token_range(vocabulary: int) -> range:
    """Ordinary tokens of any vocabulary: special ones stand at its ends (GPT-2's at 50256, OPT's at 0 to 3)."""
    return range(min(1000, vocabulary // 8), min(vocabulary, 50_000) - vocabulary // 64)


def draw_trial(
    lengths: tuple[int, int, int], state: str, vocabulary: int, seed: int, replicate: int, trial: int, content: str
) -> TrialPrompts:
    """Draw the prompts of one trial.

    Args:
        lengths: tokens of A, B and Q.
        state: "hit" or "miss".
        trial: 0, 1, ... within the replicate, burn-in included. Ignored with ``content`` "repeated".

    Raises:
        ColdprefixError: more trials than the vocabulary has distinct first tokens for.
    """
    if content == "repeated":
        trial = replicate = 0
    tokens = token_range(vocabulary)
    used = FIRST_TOKENS_PER_TRIAL * (trial + 1)
    if used > len(tokens):
        raise ColdprefixError(f"a vocabulary of {vocabulary} tokens has distinct first tokens for {len(tokens) // 5} trials; ask for fewer")
    # One permutation for the whole replicate: trial t takes its t-th handful, so first tokens never come twice.
    firsts = np.random.default_rng([seed, *lengths, replicate]).permutation(len(tokens))[used - FIRST_TOKENS_PER_TRIAL : used]
    rng = np.random.default_rng([seed, *lengths, replicate, trial])

    def part(length: int, first: int) -> NDArray[np.int64]:
        ids = rng.integers(tokens.start, tokens.stop, size=length)
        ids[0] = tokens.start + first
        return ids

    a, b, q = (part(length, first) for length, first in zip(lengths, firsts[:3], strict=True))
    b_again, q_again = b.copy(), q.copy()
    if content == "fresh":
        b_again[0], q_again[0] = tokens.start + firsts[3], tokens.start + firsts[4]
    warm = [*a.tolist(), *b.tolist()]
    if state == "hit":
        return TrialPrompts(warm, warm + q.tolist(), warm + q_again.tolist(), len(warm))
    return TrialPrompts(warm, [*b.tolist(), *q.tolist()], [*b_again.tolist(), *q.tolist()], 0)


def prompt_hash(prompt: Sequence[int]) -> str:
    """16 hex digits over the token ids."""
    return hashlib.sha256(np.asarray(prompt, dtype="<u4").tobytes()).hexdigest()[:16]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Leading tokens that two prompts share."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
