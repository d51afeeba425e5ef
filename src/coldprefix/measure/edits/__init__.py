"""Edits of a prompt, one file each: what is asked after a cache has been warmed with [A, B]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

Tokens = list[int]


@dataclass(frozen=True)
class Edit:
    """An edit of the prompt: a cache state, since it decides what of the cache can be used.

    What must be reused is never said here: it is the common prefix of the warm prompt and the query, as the engine's cache allows.

    Attributes:
        apply: (A, B, Q) -> the query, each as token ids.
        meaning: what is asked, for the docs.
        colour, hatch: of its bars in all figures.
        warmed: does a trial warm the cache with [A, B] before it asks? If not, nothing of the query may be there.
    """

    apply: Callable[[Tokens, Tokens, Tokens], Tokens]
    meaning: str
    colour: str
    hatch: str = ""
    warmed: bool = True

    def shape(self, a: int, b: int, q: int) -> tuple[int, int]:
        """(length of the query, tokens that it shares with what the cache was warmed with), for parts of so many tokens."""
        warm = list(range(a + b))
        query = self.apply(warm[:a], warm[a:], list(range(a + b, a + b + q)))
        shared = next((i for i, (x, y) in enumerate(zip(warm, query, strict=False)) if x != y), min(len(warm), len(query)))
        return len(query), shared if self.warmed else 0


def load(name: str) -> Edit:
    """The edit of this name, from its file. A cell's program knows no other: adding an edit measures nothing again."""
    found: Edit = import_module(f"coldprefix.measure.edits.{name}").EDIT
    return found
