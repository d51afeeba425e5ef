"""The keys of config.yaml that are about a trace of requests (docs/traces.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from coldprefix.strict import Strict, as_list, as_number


def _sizes(value: Any) -> Any:
    """`--config trace_cache_tokens=64` arrives as a number."""
    return [value] if isinstance(value, int) else as_list(value)


class TraceKeys(Strict):
    """What is done with a trace. No cell depends on it."""

    trace: str | None = Field(default=None, description="A file of requests as JSON lines (docs/traces.md), for `snakemake trace`.")
    trace_text: bool = Field(default=True, description="false: no text of the trace in any output, only hashes that hold for one run.")
    trace_bad: Literal["refuse", "skip"] = Field(
        default="refuse", description="refuse: a line that cannot be used ends it. skip: such lines are left out and counted."
    )
    trace_replay: int = Field(
        default=200, ge=0, description="The first so many requests are sent to each phase; 0: none, no engine is needed."
    )
    trace_processes: int = Field(default=3, ge=1, description="Engine processes that each replay the trace; below 3 there is no interval.")
    trace_block_tokens: Annotated[Literal["auto"] | Annotated[int, Field(ge=1)], BeforeValidator(as_number)] = Field(
        default="auto", description="Tokens of a block of the caches. auto: of hashes what the trace's own lengths say, else 16."
    )
    trace_cache_tokens: Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_sizes)] = Field(
        default=[16384, 262144, 4194304], description="Sizes of caches, in tokens, of which it is said what they would reuse."
    )
