"""Tokens are replaced by as many others: a date, a name, a changed line."""

from __future__ import annotations

from coldprefix.measure.edits import Edit, Family, Parts, Place, Tokens


def make(tokens: int, places: tuple[Place, ...]) -> Edit:
    """``tokens`` tokens from a place on are others."""

    def substitute(parts: Parts) -> Tokens:
        before = places[0].of(len(parts.warm))
        if before + tokens > len(parts.warm):
            raise ValueError(f"{tokens} tokens from {places[0]} on are more than [A, B] has ({len(parts.warm)})")
        return [*parts.warm[:before], *parts.new, *parts.warm[before + tokens :], *parts.q]

    meaning = f"query [A, B, Q] after [A, B], with {tokens} other tokens at {places[0]} of [A, B]"
    return Edit(substitute, meaning, "#882255", "\\\\\\\\", new=tokens)


EDIT = Family("substitute-TOKENS@PLACE", make)
