"""The expected cost of a prompt's order on an engine, in computed tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from coldprefix.engines.reuse import Memory
from coldprefix.study.prompt_file import Prompt, Segment, breaks

Reused = Callable[[int, int], int]  # (tokens of the prompt, tokens before the first that is new) -> tokens reused


@dataclass(frozen=True)
class Case:
    """One way in which a request can differ from the one before it.

    Attributes:
        segment: the first that has changed.
        before: tokens before the first that is new.
        reused, computed: tokens of the prompt.
        chance: its probability.
    """

    segment: str
    before: int
    reused: int
    computed: int
    chance: float


@dataclass(frozen=True)
class Layout:
    """An order of a prompt's segments, with the cases that it makes."""

    order: tuple[Segment, ...]
    cases: tuple[Case, ...]

    @property
    def computed_tokens(self) -> float:
        """Expected for one request, which comes after another of the same prompt."""
        return sum(case.computed * case.chance for case in self.cases)

    @property
    def names(self) -> str:
        """The order in words."""
        return ", ".join(segment.name for segment in self.order)


def reused_by(memory: Callable[[], Memory]) -> Reused:
    """What an engine with such a cache reuses of a prompt whose tokens from a place on are new, asked of its rule."""

    @cache
    def reused(tokens: int, before: int) -> int:
        cached = list(range(tokens))
        empty = memory()
        empty.ask(cached, 1)
        return empty.ask([*cached[:before], *range(tokens, 2 * tokens - before)], 1).least

    return reused


def layout_of(order: Sequence[Segment], prompt: Prompt, reused: Reused) -> Layout:
    """An order and what it makes the engine compute."""
    cases = []
    for segment, before, chance in breaks(order, prompt.requests_per_hour):
        kept = reused(prompt.tokens, before)
        cases.append(Case(segment.name, before, kept, prompt.tokens - kept, chance))
    return Layout(tuple(order), tuple(cases))


def best_of(prompt: Prompt, reused: Reused) -> Layout:
    """The better of the prompt as it stands and its best order: blocks, windows and states can make that the worse one."""
    as_it_stands, best = (layout_of(order, prompt, reused) for order in (prompt.segments, prompt.best_order()))
    return best if best.computed_tokens < as_it_stands.computed_tokens else as_it_stands
