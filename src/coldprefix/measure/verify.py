"""Was a trial what it was meant to be? Decided by what the engine reports, never by what we meant to send."""

from __future__ import annotations

from coldprefix.engines.contract import Completion
from coldprefix.engines.reuse import Promise, exactly
from coldprefix.job import Protocol


def intended_reuse(step: str, promise: Promise, warmed: bool, protocol: Protocol) -> Promise | None:
    """Tokens that the engine must report as reused in this step, or None where the protocol prescribes nothing.

    Args:
        step: "warmup", "query", "rewarm" or "stream".
        promise: what the engine's own rule says of a prompt after what the trial has sent before.
        warmed: was there a warm-up?

    A query must reuse what the rule says. The warm-up must be cold, except with repeated content and no reset, where it may find
    anything, and with text and chat, where it finds the head that all prompts share (a chat template's) or not, as the engine keeps it; so must
    a query without a warm-up. What the re-warm finds is a result of the study (what did the query destroy?), not a condition.
    """
    if step in ("query", "stream") and warmed:
        return promise
    cold = protocol.reset == "trial" or (protocol.content == "fresh" and protocol.request_form == "tokens")
    return exactly(0) if cold and step != "rewarm" else None


def rejection(completion: Completion, prompt_tokens: int, intended: Promise | None, max_tokens: int, streamed: bool) -> str | None:
    """Why this request cannot be used, or None.

    Args:
        prompt_tokens: tokens that were sent.
        intended: tokens that had to be reused; None where any number will do.
        max_tokens: tokens that had to be generated.
    """
    if completion.prompt_tokens is not None and completion.prompt_tokens != prompt_tokens:
        return f"the engine saw a prompt of {completion.prompt_tokens} tokens, {prompt_tokens} were sent"
    if completion.cached_tokens is None:
        return "the engine did not report how many tokens it reused" + (f": {completion.uncounted}" if completion.uncounted else "")
    if completion.evaluated_tokens is not None and completion.cached_tokens + completion.evaluated_tokens != prompt_tokens:
        return f"reused {completion.cached_tokens} + evaluated {completion.evaluated_tokens} tokens are not the {prompt_tokens} sent"
    if completion.counted_tokens is not None and completion.counted_tokens != completion.cached_tokens:
        return f"the engine says that it reused {completion.cached_tokens} tokens, its own counter {completion.counted_tokens}"
    if intended is not None and not intended.holds(completion.cached_tokens):
        return f"reused {completion.cached_tokens} tokens, should be {intended}"
    if completion.generated_tokens != max_tokens:
        return f"generated {completion.generated_tokens} tokens, {max_tokens} were asked for"
    if streamed and len(completion.token_times_ms) != completion.generated_tokens:
        return f"{len(completion.token_times_ms)} arrivals were seen of {completion.generated_tokens} generated tokens"
    if streamed and completion.first_chunk_tokens != 1:
        return f"the first chunk carried {completion.first_chunk_tokens} tokens, so the first token's time is unknown"
    return None
