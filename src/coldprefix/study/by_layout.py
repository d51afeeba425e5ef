"""A prompt file becomes a sweep that measures it: edits at every place where one of its segments can be the first that has changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coldprefix.errors import ColdprefixError
from coldprefix.study import registry
from coldprefix.study.prompt_file import Prompt, breaks, read_prompt

SWEEP = "layout"


def with_layout(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the sweep `layout`, if its key `layout` names a prompt file.

    Raises:
        ColdprefixError: the file cannot be used; begins with the key.
    """
    result = dict(values)
    file = result.get("layout")
    if not file or not isinstance(file, str):
        return result
    sweeps = dict(result["sweeps"]) if isinstance(result.get("sweeps"), Mapping) else {}
    if SWEEP in sweeps:
        raise ColdprefixError(f"layout: the sweep {SWEEP} is made of {file}; call your own sweep something else")
    try:
        prompt = read_prompt(Path(file))
    except ColdprefixError as error:
        raise ColdprefixError(f"layout: {error}") from None
    return {**result, "sweeps": sweeps | {SWEEP: sweep_of(prompt)}}


def sweep_of(prompt: Prompt) -> dict[str, Any]:
    """The sweep: a hit, in which only the question is new, and beside it, in the same processes, one token changed at each place where some
    order of the segments can break."""
    context = prompt.tokens - prompt.question.tokens
    return {
        "phases": list(registry.phases()),
        "configurations": [f"A{context - context // 2}_B{context // 2}"],
        "question_tokens": prompt.question.tokens,
        "states": ["hit"],
        "partners": [state_at(before, context) for before in places(prompt) if before < context],
        "trials": 4,  # a process's median of two would be moved by one disturbed trial
        "stream_tokens": 2,
    }


def state_at(before: int, context: int) -> str:
    """The state in which the first new token stands behind ``before`` others: of the question behind the whole context, a hit."""
    return "hit" if before >= context else f"substitute-1@{before}"


def places(prompt: Prompt) -> list[int]:
    """Where the prompt can break, as it stands and in its best order."""
    found = {before for order in (prompt.segments, prompt.best_order()) for _, before, _ in breaks(order, prompt.requests_per_hour)}
    return sorted(found)
