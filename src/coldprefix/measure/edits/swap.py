"""Two segments change places: tools or documents in another order."""

from __future__ import annotations

from coldprefix.measure.edits import Edit, Family, Parts, Place, Tokens


def make(tokens: int, places: tuple[Place, ...]) -> Edit:
    """The ``tokens`` tokens at one place and those at another change places."""

    def swap(parts: Parts, later: int) -> Tokens:
        warm = parts.warm
        one, other = sorted(place.of(len(warm)) for place in places)
        if other - one < tokens or other + tokens > len(warm):
            raise ValueError(f"segments of {tokens} tokens at {places[0]} and {places[1]} overlap, or leave [A, B] ({len(warm)} tokens)")
        first, second = warm[one + later : one + tokens], warm[other + later : other + tokens]
        return [*warm[: one + later], *second, *warm[one + tokens : other + later], *first, *warm[other + tokens :], *parts.q]

    meaning = f"query [A, B, Q] after [A, B], with the {tokens} tokens at {places[0]} and at {places[1]} of [A, B] exchanged"
    if tokens == 1:  # the second query of a longer one exchanges one token less
        raise ValueError("swaps segments of at least 2 tokens; write for example swap-16@20%-60%")
    return Edit(lambda parts: swap(parts, 0), meaning, "#999933", "||||", again=lambda parts: swap(parts, 1))


EDIT = Family("swap-TOKENS@PLACE-PLACE", make, places=2)
