"""Tokens are put in: a line, a document, a tool."""

from __future__ import annotations

from coldprefix.measure.edits import Edit, Family, Parts, Place, Tokens


def make(tokens: int, places: tuple[Place, ...]) -> Edit:
    """``tokens`` new tokens at a place."""

    def insert(parts: Parts) -> Tokens:
        before = places[0].of(len(parts.warm))
        return [*parts.warm[:before], *parts.new, *parts.warm[before:], *parts.q]

    return Edit(insert, f"query [A, B, Q] after [A, B], with {tokens} new tokens at {places[0]} of [A, B]", "#117733", "++++", new=tokens)


EDIT = Family("insert-TOKENS@PLACE", make)
