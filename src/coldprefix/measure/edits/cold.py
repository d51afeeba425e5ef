"""The prompt of a hit with nothing of it cached: what the cache saves."""

from __future__ import annotations

from coldprefix.measure.edits import Edit
from coldprefix.measure.edits.hit import append_question

EDIT = Edit(append_question, "query [A, B, Q], of which nothing is cached", "#CC79A7", "....", warmed=False)
