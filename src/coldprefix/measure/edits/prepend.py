"""Tokens are put before everything: nothing after them can be reused."""

from __future__ import annotations

from coldprefix.measure.edits import Edit, Family, Parts, Place, Tokens


def make(tokens: int, _places: tuple[Place, ...]) -> Edit:
    """``tokens`` new tokens at the head."""

    def prepend(parts: Parts) -> Tokens:
        return [*parts.new, *parts.warm, *parts.q]

    return Edit(prepend, f"query [{tokens} new tokens, A, B, Q] after [A, B]", "#AA4499", "xxxx", new=tokens)


EDIT = Family("prepend-TOKENS", make, places=0)
