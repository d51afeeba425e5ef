"""What a cache keeps: in which granularity it reuses, and how many prompts back it still knows one. By the server's own counts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coldprefix.engines.contract import Session
from coldprefix.engines.endpoint.settings import VOCABULARY
from coldprefix.errors import ColdprefixError

CUTS = 8  # edits of one prompt
BACK = 12  # prompts that are asked again, the latest first
SHORT = 200  # tokens of each: more than a block of vLLM's


class Fresh:
    """Prompts that begin like no other one, nor like those of trials, which draw from the other half."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._first = iter(self._rng.permutation(np.arange(VOCABULARY // 2, VOCABULARY - VOCABULARY // 64 - 1)))

    def tokens(self, length: int) -> list[int]:
        """A new prompt."""
        first = int(next(self._first))
        return [first, *(int(token) for token in self._rng.integers(VOCABULARY // 2, VOCABULARY - VOCABULARY // 64, size=length - 1))]


@dataclass(frozen=True)
class Granularity:
    """What edits at some places leave.

    Attributes:
        pairs: (tokens before the edit, tokens reused) of each.
        tokens: the size of the pieces that are reused; 0 where nothing is, None where the counts follow no such rule.
    """

    pairs: list[tuple[int, int]]
    tokens: int | None

    def __str__(self) -> str:
        counts = ", ".join(f"{reused} of {before}" for before, reused in self.pairs)
        if self.tokens == 1:
            return f"single tokens: each of {len(self.pairs)} edits left all that stands before it"
        if self.tokens == 0:
            return f"nothing survived any of {len(self.pairs)} edits of a prompt of this length ({counts})"
        if self.tokens is None:
            return f"no fixed size, as with windows or recurrent states: {counts}"
        return f"blocks of {self.tokens} tokens, or a multiple that was not seen: {counts}"


def granularity(session: Session, fresh: Fresh, length: int) -> Granularity:
    """Edit one prompt of ``length`` tokens at several places, from its end to its beginning, and see what each edit leaves.

    Raises:
        ColdprefixError: the server does not say.
    """
    prompt = fresh.tokens(length)
    session.complete(prompt, 1, stream=False)
    pairs = []
    for number in range(CUTS, 0, -1):
        before = length * number // (CUTS + 1) + number % 3  # no multiples of anything
        pairs.append((before, _reused(session, [*prompt[:before], *fresh.tokens(8)])))
    return Granularity(pairs, piece_of(pairs))


def piece_of(pairs: Sequence[tuple[int, int]]) -> int | None:
    """The largest size of pieces by which all these reuses are the whole pieces before an edit; as of `Granularity.tokens`."""
    found = math.gcd(*(reused for _, reused in pairs))
    if not found:
        return 0
    if all(before == reused for before, reused in pairs):
        return 1
    return found if all(before // found * found == reused for before, reused in pairs) else None


@dataclass(frozen=True)
class Kept:
    """Which of some prompts a server still knows.

    Attributes:
        reused: tokens that were reused of each, the latest first.
        total_ms: that each took.
        length: tokens of each.
    """

    reused: list[int]
    total_ms: list[float]
    length: int

    @property
    def latest(self) -> int:
        """How many of the latest were known, up to the first that was not."""
        return next((place for place, reused in enumerate(self.reused) if not reused), len(self.reused))

    def text(self, slots: int | str) -> str:
        """What that means, where the server says that it has ``slots``."""
        asked, latest, known = len(self.reused), self.latest, sum(map(bool, self.reused))
        said = f" (it says {slots})" if isinstance(slots, int) else ""
        if latest < asked:
            more = f"; of the older ones {known - latest}, out of order" if known > latest else ""
            behind = "no tier behind them" if not isinstance(slots, int) or latest <= slots else "something beyond its slots"
            return f"it seems to have {latest} slots{said} and {behind}: of {asked} prompts the {latest} latest were still known{more}"
        if isinstance(slots, int) and slots < asked:
            inside, beyond = (statistics.median(part) for part in (self.total_ms[:slots], self.total_ms[slots:]))
            return (
                f"yes, a hidden tier: all {asked} latest prompts were still known, and its {slots} slots cannot hold them; a repeated miss is none "
                f"here.\nOne from a slot took {inside:.1f} ms, one from behind them {beyond:.1f} ms (medians of {slots} and {asked - slots})"
            )
        what = "a pool of blocks, as it says" if isinstance(slots, str) and "pool" in slots else "more slots, a pool or a tier"
        return f"all {asked} latest prompts were still known: {what}; where it ends was not looked for"


def kept(session: Session, fresh: Fresh, length: int) -> Kept:
    """Send some prompts, then each again, the latest first. Raises ColdprefixError if the server does not say what it reused."""
    prompts = [fresh.tokens(length) for _ in range(BACK)]
    for prompt in prompts:
        session.complete(prompt, 1, stream=False)
    reused, times = [], []
    for prompt in reversed(prompts):
        done = session.complete(prompt, 1, stream=False)
        if done.cached_tokens is None:
            raise ColdprefixError(f"the server does not say any more what it reused: {done.uncounted}")
        reused.append(done.cached_tokens)
        times.append(done.total_ms or 0.0)
    return Kept(reused, times, length)


def _reused(session: Session, prompt: list[int]) -> int:
    done = session.complete(prompt, 1, stream=False)
    if done.cached_tokens is None:
        raise ColdprefixError(f"the server does not say any more what it reused: {done.uncounted}")
    return done.cached_tokens
