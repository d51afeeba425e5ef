"""A question is appended: everything before it can be reused."""

from __future__ import annotations

from coldprefix.measure.edits import Edit, Tokens


def append_question(a: Tokens, b: Tokens, q: Tokens) -> Tokens:
    """[A, B, Q]"""
    return a + b + q


EDIT = Edit(append_question, "query [A, B, Q] after [A, B]", "#0072B2")
