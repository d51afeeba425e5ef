"""The prompt of a hit with nothing of it cached: what the cache saves."""

from __future__ import annotations

from coldprefix.measure.edits import Edit, Parts, Tokens


def append_question(parts: Parts) -> Tokens:
    """[A, B, Q], as of a hit"""
    return parts.warm + parts.q


EDIT = Edit(append_question, "query [A, B, Q], of which nothing is cached", "#999999", "....", warmed=False)
