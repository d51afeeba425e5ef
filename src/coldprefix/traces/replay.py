"""A trace's prompts, sent one after the other to an engine that runs. Any session will do: one of a study's backends, or of an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from coldprefix.engines.contract import Session
from coldprefix.engines.reuse import Promise
from coldprefix.errors import EngineRefusal
from coldprefix.measure.load import Load
from coldprefix.measure.prompts import token_range
from coldprefix.measure.verify import rejection

SENT: dict[str, tuple[pl.DataType, str]] = {
    "phase": (pl.String(), "the backend"),
    "process": (pl.Int32(), "which of its engine processes, from 0"),
    "engine_process": (pl.String(), "tells the process from all others"),
    "line": (pl.Int32(), "line of the request in the trace"),
    "prompt_tokens": (pl.Int32(), "tokens that were sent"),
    "cached_tokens": (pl.Int32(), "prompt tokens that the engine says it reused"),
    "evaluated_tokens": (pl.Int32(), "prompt tokens that the engine says it computed"),
    "rule_tokens": (pl.Int32(), "most that the rule of its cache reuses, if nothing is evicted"),
    "connect_ms": (pl.Float64(), "time to connect; null in process"),
    "ttft_ms": (pl.Float64(), "time to first token"),
    "engine_prompt_ms": (pl.Float64(), "the engine's own time for computing the prompt; null: it does not say"),
    "foreign_cpu": (pl.Float64(), "share of the machine's CPU that others used meanwhile; null: too short to tell"),
    "rejection": (pl.String(), "why the request cannot be used; null: it can"),
}
WARMING = (
    64  # tokens of a prompt of none of the trace's tokens' order, sent before: an engine's first request is slow for reasons of its own
)


def send(
    session: Session,
    prompts: Sequence[Sequence[int]],
    lines: Sequence[int],
    vocabulary: int,
    keys: dict[str, Any],
    on_request: Callable[[], Any] = lambda: None,
) -> list[dict[str, Any]]:
    """Send prompts in order, each when the one before is answered, one token generated.

    A request is verified as any: the counts that the engine gives must agree with each other and with what was sent, and it must not reuse more than
    the rule of its cache allows. Less is a result: the prompt was evicted.

    Args:
        lines: of the prompts in the trace, for messages and rows.
        keys: what is the same in all rows.

    Returns:
        A row for each prompt (SENT).

    Raises:
        ColdprefixError: the engine failed, or refused a prompt.
    """
    memory = session.memory()
    tokens = token_range(vocabulary)
    warming = np.random.default_rng(0).integers(tokens.start, tokens.stop, WARMING).tolist()
    memory.ask(session.seen(warming), 1)
    session.complete(warming, 1, stream=True)
    load = Load(session.process_ids())
    rows = []
    for prompt, line in zip(prompts, lines, strict=True):
        seen = session.seen(prompt)
        rule = memory.ask(seen, 1).most
        try:
            done = session.complete(prompt, 1, stream=True)
        except EngineRefusal as refusal:
            raise EngineRefusal(f"line {line} of the trace: {refusal}") from None
        row = {
            "line": line,
            "prompt_tokens": len(seen),
            "cached_tokens": done.cached_tokens,
            "evaluated_tokens": done.evaluated_tokens,
            "rule_tokens": rule,
            "connect_ms": done.connect_ms,
            "ttft_ms": done.ttft_ms,
            "engine_prompt_ms": done.engine_prompt_ms,
            "foreign_cpu": load.since_last()["foreign_cpu"],
            "rejection": rejection(done, len(seen), Promise(0, rule), 1, True),
            "engine_process": session.identity,
        }
        rows.append(keys | row)
        on_request()
    return rows
