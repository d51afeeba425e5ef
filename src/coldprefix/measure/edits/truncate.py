"""Everything from a place on is dropped: a history that is cut."""

from __future__ import annotations

from coldprefix.measure.edits import Edit, Family, Parts, Place, Tokens


def make(_tokens: int, places: tuple[Place, ...]) -> Edit:
    """[A, B] up to a place, then the question."""

    def truncate(parts: Parts) -> Tokens:
        before = places[0].of(len(parts.warm))
        if before == len(parts.warm):
            raise ValueError(f"truncate@{places[0]} drops nothing of the {before} tokens of [A, B]; write hit")
        return [*parts.warm[:before], *parts.q]

    return Edit(truncate, f"query [A, B up to {places[0]}, Q] after [A, B]", "#332288", "oooo")


EDIT = Family("truncate@PLACE", make, tokens=False)
