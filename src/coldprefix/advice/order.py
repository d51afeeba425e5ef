"""The expected cost of a prompt's order, and the order that costs least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

from coldprefix.engines.reuse import Memory
from coldprefix.study.prompt_file import Prompt, Segment, breaks

Order = tuple[Segment, ...]
Reused = Callable[[int, int], int]  # (tokens of the prompt, tokens before the first that is new) -> tokens reused


@dataclass(frozen=True)
class Layout:
    """An order of a prompt's segments with what it makes an engine compute.

    Attributes:
        computed_tokens: expected for one request, which comes after another of the same prompt.
        shares: (segment, tokens computed, probability): for each segment that can be the first that has changed.
    """

    order: Order
    computed_tokens: float
    shares: tuple[tuple[str, int, float], ...]

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


def layout_of(order: Order, prompt: Prompt, reused: Reused) -> Layout:
    """An order and what it costs."""
    shares = tuple(
        (segment.name, prompt.tokens - reused(prompt.tokens, before), chance)
        for segment, before, chance in breaks(order, prompt.requests_per_hour)
    )
    return Layout(order, sum(computed * chance for _, computed, chance in shares), shares)


def best_of(prompt: Prompt, reused: Reused) -> Layout:
    """The order with the fewest expected computed tokens; of equal ones that which is nearest to the prompt as it stands."""
    return min((layout_of(order, prompt, reused) for order in orders(prompt)), key=lambda layout: layout.computed_tokens)


def orders(prompt: Prompt) -> Sequence[Order]:
    """All orders that the segments' places allow, the present one's neighbours first: the question stays last."""
    *rest, question = prompt.segments
    first, free, last = (tuple(s for s in rest if s.place == place) for place in ("first", "free", "last"))
    return [(*first, *middle, *last, question) for middle in permutations(free)]
