"""A question is appended: everything before it can be reused."""

from __future__ import annotations

from coldprefix.measure.edits import Edit, Parts, Tokens


def append_question(parts: Parts) -> Tokens:
    """[A, B, Q]"""
    return parts.warm + parts.q


EDIT = Edit(append_question, "query [A, B, Q] after [A, B]", "#0072B2", keeps=True)
