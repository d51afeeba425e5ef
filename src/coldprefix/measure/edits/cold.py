"""The prompt of a hit with nothing of it cached: what the cache saves."""

from __future__ import annotations

from coldprefix.measure.edits import Edit, Tokens


def append_question(a: Tokens, b: Tokens, q: Tokens) -> Tokens:
    """[A, B, Q], as of a hit"""
    return a + b + q


EDIT = Edit(append_question, "query [A, B, Q], of which nothing is cached", "#999999", "....", warmed=False)
