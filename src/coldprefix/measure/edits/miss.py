"""The first context is dropped: nothing can be reused."""

from __future__ import annotations

from coldprefix.measure.edits import Edit, Tokens


def drop_first_context(a: Tokens, b: Tokens, q: Tokens) -> Tokens:
    """[B, Q]"""
    return b + q


EDIT = Edit(drop_first_context, "query [B, Q] after [A, B]", "#D55E00", "////")
