"""Others use the engine in between: is the prefix still there?"""

from __future__ import annotations

from coldprefix.measure.edits import MOST_BETWEEN, Edit, Family, Parts, Place, Tokens


def make(tokens: int, places: tuple[Place, ...]) -> Edit:
    """A hit's query, after ``tokens`` tokens of other prompts."""
    if tokens > MOST_BETWEEN:
        raise ValueError(f"sends at most {MOST_BETWEEN} tokens in between; make the cache smaller instead")

    def append_question(parts: Parts) -> Tokens:
        return parts.warm + parts.q

    return Edit(append_question, f"query [A, B, Q] after [A, B] and {tokens} tokens of other prompts", "#661100", "oo", between=tokens)


EDIT = Family("foreign-TOKENS", make, places=0)
