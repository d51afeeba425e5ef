"""A prompt file becomes a sweep that measures it: edits at every place where one of its segments can be the first that has changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coldprefix.errors import ColdprefixError
from coldprefix.study import registry
from coldprefix.study.prompt_file import Prompt, breaks, read_prompt

SWEEP = "layout"
OFTEN = 0.01  # of the requests


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
    order of the segments can break, and the ruler's states."""
    context = prompt.tokens - prompt.question.tokens
    return {
        "phases": list(registry.phases()),
        "configurations": [f"A{context - context // 2}_B{context // 2}"],
        "question_tokens": prompt.question.tokens,
        "states": ["hit"],
        "partners": [*(state for state in broken(prompt) if state != "hit"), *ruler(prompt)],
        "trials": 3,  # fewer have no median that one slow trial cannot move
        "stream_tokens": 2,
    }


def state_at(before: int, context: int) -> str:
    """The state in which the first new token stands behind ``before`` others: of the question behind the whole context, a hit."""
    return "hit" if before >= context else f"substitute-1@{before}"


def broken(prompt: Prompt) -> list[str]:
    """The states of a prompt that breaks, as it stands or in its best order."""
    context = prompt.tokens - prompt.question.tokens
    return [state_at(before, context) for before in sorted(_chances(prompt))]


def ruler(prompt: Prompt) -> list[str]:
    """States that say what so many computed tokens take in a prompt of this length: cold, and for each place where an order often breaks another
    edit that computes as many: everything behind it is new. What seldom happens is found on the straight line between them.

    As many exactly, since a time does not rise with every token: on a CPU llama.cpp took 190 ms for 52 tokens and 125 for 64 (docs/layout.md). None
    of them is a state that the advice is about, so that what they predict can be held against what was measured there. They are
    measured in the same processes, whose own speed then cancels out.
    """
    context = prompt.tokens - prompt.question.tokens
    found = ["cold"]
    for before in sorted(before for before, chance in _chances(prompt).items() if chance >= OFTEN):
        behind = max(context - before, 0)
        if not behind:
            found.append(f"truncate@{context - 1}")
        elif before and behind > 1:  # with nothing before it, it is cold; of one token there is no other edit
            found.append(f"substitute-{behind}@{before}")
    return found


def _chances(prompt: Prompt) -> dict[int, float]:
    """Of each place where the prompt can break, as it stands or in its best order, the probability in the order where it is more."""
    found: dict[int, float] = {}
    for order in (prompt.segments, prompt.best_order()):
        for _, before, chance in breaks(order, prompt.requests_per_hour):
            found[before] = max(chance, found.get(before, 0.0))
    return found
