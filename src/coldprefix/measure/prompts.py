"""The prompts of a cell: token ids, drawn so that what an engine can reuse is known exactly.

A prompt has three parts, A, B and Q, and for some edits new tokens N. The cache is warmed with [A, B]; the query is what the cell's edit
makes of the parts. A trial asks twice, once without and once with streaming. With fresh content no two prompts of a process share a first
token unless one is meant to extend the other, so a reuse that was not intended is 0 tokens, not "hardly any":

- the first tokens of A, B, Q and N, of prompts that are sent in between, and the one that makes the second query another, are all different,
  over all trials of a process;
- the second query differs from the first at the first token that is not to be reused. A block pool (vLLM) keeps the first
  query's blocks, so the very same prompt would be a hit.

The draw depends on the study's seed, the lengths, the process and the number of the trial in it, not on the backend: all backends get the
same token ids. Where nothing is warmed (an edit like `cold`), the query is asked of a cache that knows none of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coldprefix.errors import ColdprefixError
from coldprefix.job import Lengths, common_prefix
from coldprefix.measure.edits import MOST_BETWEEN, Parts, load

FIRST_TOKENS_PER_TRIAL = 5  # of A, B, Q, N, and the token that makes the second query another
FOREIGN_PROMPT = 128  # tokens of a prompt that is sent in between; the last one has what is left
FOREIGN_PER_TRIAL = 2 * MOST_BETWEEN // FOREIGN_PROMPT  # such prompts, at most


@dataclass(frozen=True)
class TrialPrompts:
    """The prompts of one trial, as token ids.

    Attributes:
        warm: [A, B], which fills the cache; empty where nothing is warmed.
        query: the first query.
        stream: the second query; equal to ``query`` with repeated content.
        keeps: must something of the warm prompt be reused, whatever the engine's rule allows?
        before_query, before_stream: other prompts that are sent first, after the warm-up.
    """

    warm: list[int]
    query: list[int]
    stream: list[int]
    keeps: bool = False
    before_query: tuple[list[int], ...] = ()
    before_stream: tuple[list[int], ...] = ()


def token_range(vocabulary: int) -> range:
    """Ordinary tokens of any vocabulary: special ones stand at its ends (GPT-2's at 50256, OPT's at 0 to 3)."""
    return range(min(1000, vocabulary // 8), min(vocabulary, 50_000) - vocabulary // 64)


def draw_trial(lengths: Lengths, state: str, vocabulary: int, seed: int, process: int, number: int, content: str) -> TrialPrompts:
    """Draw the prompts of one trial.

    Args:
        state: the name of an edit.
        number: 0, 1, ... over all trials of the process, whatever they are. Ignored with ``content`` "repeated".

    Raises:
        ColdprefixError: more trials than the vocabulary has distinct first tokens for.
        ValueError: the edit does not fit these lengths.
    """
    if content == "repeated":
        number = process = 0
    tokens = token_range(vocabulary)
    used = FIRST_TOKENS_PER_TRIAL * (number + 1)
    edit = load(state)
    per_trial = FIRST_TOKENS_PER_TRIAL + (FOREIGN_PER_TRIAL if edit.between else 0)
    if per_trial * (number + 1) > len(tokens):
        most = len(tokens) // per_trial
        raise ColdprefixError(f"a vocabulary of {vocabulary} tokens has distinct first tokens for {most} trials; ask for fewer")
    parts = (lengths.A, lengths.B, lengths.Q, edit.new)
    wanted = edit.shape(*parts[:3])[1]
    # One permutation for the whole process: trial t takes its t-th handful, so first tokens never come twice.
    every = np.random.default_rng([seed, process]).permutation(len(tokens))
    firsts = every[used - FIRST_TOKENS_PER_TRIAL : used]
    rng = np.random.default_rng([seed, *parts[:3], process, number])

    def part(length: int, first: int) -> list[int]:
        ids = rng.integers(tokens.start, tokens.stop, size=length)
        ids[:1] = tokens.start + first
        return [int(token) for token in ids]

    while True:
        drawn = Parts(*(part(length, first) for length, first in zip(parts, firsts[:4], strict=True)))
        warm, query = drawn.warm if edit.warmed else [], edit.apply(drawn)
        shared = common_prefix(warm, query)
        if shared == wanted:
            break  # else a token that is another one only by its place is equal by chance: one draw in 50,000
    full, rest = divmod(edit.between, FOREIGN_PROMPT)
    sizes = [FOREIGN_PROMPT] * full + [rest] * bool(rest)
    own = iter(every[::-1][number * FOREIGN_PER_TRIAL :])  # from the other end
    other = [tuple(part(size, next(own)) for size in sizes) for _ in range(2)]
    if content != "fresh" or shared == len(query):
        stream = list(query)
    elif edit.again:
        stream = edit.again(drawn)
    else:
        stream = [*query[:shared], tokens.start + int(firsts[4]), *query[shared + 1 :]]
    return TrialPrompts(warm, query, stream, edit.keeps, *other)


def prompt_hash(prompt: Sequence[int]) -> str:
    """16 hex digits over the token ids."""
    return hashlib.sha256(np.asarray(prompt, dtype="<u4").tobytes()).hexdigest()[:16]
