"""Edits of a prompt, one file each: what is asked after a cache has been warmed with [A, B].

A cache state is written as the edit's name, for some edits with a number of tokens and with places in [A, B]: `delete-16@50%`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import NamedTuple

Tokens = list[int]
MOST_BETWEEN = 8192  # tokens of other prompts before a query: each of these prompts has a first token of its own
STATE = re.compile(r"(?P<name>[a-z][a-z_]*)(?:-(?P<tokens>\d+))?(?:@(?P<places>\d+%?(?:-\d+%?)*))?")


class Parts(NamedTuple):
    """What a prompt is made of, as token ids: the contexts A and B, the question Q, and `Edit.new` tokens that are in none of them."""

    a: Tokens
    b: Tokens
    q: Tokens
    new: Tokens

    @property
    def warm(self) -> Tokens:
        """[A, B], with which the cache is warmed."""
        return self.a + self.b


@dataclass(frozen=True)
class Place:
    """A place in [A, B]: so many tokens, or percent, from its beginning."""

    number: int
    percent: bool

    def of(self, length: int) -> int:
        """The tokens before it. Raises ValueError if it lies beyond ``length`` tokens."""
        before = length * self.number // 100 if self.percent else self.number
        if before > length or (self.percent and self.number > 100):
            raise ValueError(f"the place {self} lies beyond the {length} tokens of [A, B]")
        return before

    def __str__(self) -> str:
        return f"{self.number}{'%' if self.percent else ''}"


@dataclass(frozen=True)
class Edit:
    """An edit of the prompt: a cache state, since it decides what of the cache can be used.

    What must be reused is never said here: it follows from the prompts, as the engine's cache allows (engines/reuse.py).

    Attributes:
        apply: the parts -> the query, as token ids. Raises ValueError where parts of these lengths cannot be edited so.
        meaning: what is asked, for the docs.
        colour, hatch: of its bars in all figures.
        warmed: does a trial warm the cache with [A, B] before it asks? If not, nothing of the query may be there.
        keeps: does the state mean that something is reused? If the engine's rule gives 0, a trial is not what it was meant to be.
        new: tokens that it puts in.
        again: the second query of a trial, which must be another prompt; by default the first one with another token in the place of the
            first that cannot be reused.
        between: tokens of other prompts that are sent between the warm-up and the query, and again before the second query.
    """

    apply: Callable[[Parts], Tokens]
    meaning: str
    colour: str
    hatch: str = ""
    warmed: bool = True
    keeps: bool = False
    new: int = 0
    again: Callable[[Parts], Tokens] | None = None
    between: int = 0

    def shape(self, a: int, b: int, q: int) -> tuple[int, int]:
        """(length of the query, tokens that it shares with what the cache was warmed with), for parts of so many tokens.

        Raises:
            ValueError: parts of these lengths cannot be edited so.
        """
        every = list(range(a + b + q + self.new))
        parts = Parts(every[:a], every[a : a + b], every[a + b : a + b + q], every[a + b + q :])
        query = self.apply(parts)
        shared = next((i for i, (x, y) in enumerate(zip(parts.warm, query, strict=False)) if x != y), min(a + b, len(query)))
        return len(query), shared if self.warmed else 0


@dataclass(frozen=True)
class Family:
    """Edits of one kind, which differ in a number of tokens or in their places.

    Attributes:
        form: how its states are written, e.g. "delete-TOKENS@PLACE".
        make: (number of tokens, places) -> the edit. Raises ValueError where it would change nothing.
        places: how many a state of it names.
        tokens: does a state of it name a number of tokens?
    """

    form: str
    make: Callable[[int, tuple[Place, ...]], Edit]
    places: int = 1
    tokens: bool = True


@cache
def load(state: str) -> Edit:
    """The edit of a state, from its file. A cell's program knows no other: adding an edit measures nothing again.

    Raises:
        ValueError: the state is not written as its edit wants it, or would change nothing.
    """
    name, tokens, places = _read(state)
    found: Edit | Family = import_module(f"coldprefix.measure.edits.{name}").EDIT
    if isinstance(found, Edit):
        if tokens is not None or places:
            raise ValueError(f"{state!r}: write {name}, which takes no numbers")
        return found
    if (tokens is not None) != found.tokens or len(places) != found.places:
        raise ValueError(f"{state!r} is not written {found.form}; a place is a number of tokens, or a share: {_example(found.form)}")
    if tokens == 0:
        raise ValueError(f"{state!r} changes nothing; write at least 1 token")
    try:
        return found.make(tokens or 0, places)
    except ValueError as error:
        raise ValueError(f"{state!r}: {error}") from None


def name_of(state: str) -> str:
    """The name of a state's edit: of its file."""
    return _read(state)[0]


def forms(names: Collection[str]) -> list[str]:
    """How the states of these edits are written."""
    found: dict[str, Edit | Family] = {name: import_module(f"coldprefix.measure.edits.{name}").EDIT for name in names}
    return [edit.form if isinstance(edit, Family) else name for name, edit in found.items()]


def _read(state: str) -> tuple[str, int | None, tuple[Place, ...]]:
    match = STATE.fullmatch(state)
    if not match:
        raise ValueError(f"{state!r} is no state: write an edit, and where it needs them tokens and place, e.g. hit or delete-16@50%")
    places = tuple(Place(int(place.rstrip("%")), place.endswith("%")) for place in (match["places"] or "").split("-") if place)
    return match["name"], None if match["tokens"] is None else int(match["tokens"]), places


def _example(form: str) -> str:
    return form.replace("TOKENS", "16").replace("PLACE-PLACE", "20%-60%").replace("PLACE", "50%")
