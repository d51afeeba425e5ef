"""The first context is dropped: nothing can be reused."""

from __future__ import annotations

from coldprefix.measure.edits import Edit, Parts, Tokens


def drop_first_context(parts: Parts) -> Tokens:
    """[B, Q]"""
    return parts.b + parts.q


EDIT = Edit(drop_first_context, "query [B, Q] after [A, B]", "#D55E00", "////")
