"""Tokens are taken out: a document dropped, a history compacted."""

from __future__ import annotations

from coldprefix.measure.edits import Edit, Family, Parts, Place, Tokens


def make(tokens: int, places: tuple[Place, ...]) -> Edit:
    """``tokens`` tokens from a place on are gone."""

    def without(parts: Parts, later: int) -> Tokens:
        before = places[0].of(len(parts.warm))
        if before + tokens > len(parts.warm):
            raise ValueError(f"{tokens} tokens from {places[0]} on are more than [A, B] has ({len(parts.warm)})")
        if tokens == len(parts.warm):
            raise ValueError("nothing of [A, B] would be left; write cold for a prompt of which nothing is cached")
        if before + tokens == len(parts.warm):  # at the very end there is nothing behind it: an earlier one is another prompt
            later = -later
        return [*parts.warm[: before + later], *parts.warm[before + later + tokens :], *parts.q]

    meaning = f"query [A, B, Q] after [A, B], without {tokens} tokens from {places[0]} of [A, B] on"
    # The second query lacks as many tokens, one place later: another token in the first place that cannot be reused would make it a
    # substitution, which an engine that moves cached runs (--cache-reuse) treats in another way.
    return Edit(lambda parts: without(parts, 0), meaning, "#44AA99", "----", again=lambda parts: without(parts, 1))


EDIT = Family("delete-TOKENS@PLACE", make)
