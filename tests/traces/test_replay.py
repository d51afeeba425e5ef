"""A trace's prompts, sent to a session: verified one by one, by what the engine says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from null_engine import NullSession

from coldprefix.engines.contract import Completion
from coldprefix.errors import EngineRefusal
from coldprefix.traces.replay import send

PROMPTS = [[*range(100, 140)], [*range(100, 150)], [*range(100, 120), *range(900, 930)]]


def test_each_answer_is_held_against_the_rule_and_one_prompt_comes_before(session: NullSession | None = None) -> None:
    own = session or NullSession("slot")
    rows = send(own, PROMPTS, [3, 4, 9], 50_000, {"phase": "phase3a", "process": 1})
    assert [row["cached_tokens"] for row in rows] == [0, 40, 20] == [row["rule_tokens"] for row in rows]
    assert [row["line"] for row in rows] == [3, 4, 9] and not any(row["rejection"] for row in rows)
    assert len(own.sent) == 4 and own.sent[0][:1] != PROMPTS[0][:1], "an engine's first request is slow for reasons of its own"
    assert {(row["phase"], row["process"], row["engine_process"]) for row in rows} == {("phase3a", 1, "0")}


class Lying(NullSession):
    """Says that it reused one token more than it did."""

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        done = super().complete(prompt, max_tokens, stream)
        assert done.cached_tokens is not None and done.evaluated_tokens is not None
        return replace(done, cached_tokens=done.cached_tokens + 1, evaluated_tokens=done.evaluated_tokens - 1)


class Forgetful(NullSession):
    """Its cache is emptied by somebody else all the time."""

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        self.kept = []
        return super().complete(prompt, max_tokens, stream)


class Narrow(NullSession):
    """Refuses long prompts."""

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        if len(prompt) == 50:
            raise EngineRefusal("too long")
        return super().complete(prompt, max_tokens, stream)


def test_more_than_the_rule_allows_is_rejected_and_less_is_a_result() -> None:
    lying = send(Lying("slot"), PROMPTS, [1, 2, 3], 50_000, {})
    assert [row["rejection"] for row in lying] == [f"reused {n + 1} tokens, should be {f'0 to {n}' if n else 0}" for n in (0, 40, 20)]
    forgetful = send(Forgetful("slot"), PROMPTS, [1, 2, 3], 50_000, {})
    assert not any(row["rejection"] for row in forgetful) and [row["cached_tokens"] for row in forgetful] == [0, 0, 0]
    assert [row["rule_tokens"] for row in forgetful] == [0, 40, 20]


def test_an_engine_that_does_not_say_what_it_reuses_verifies_nothing() -> None:
    rows = send(NullSession("slot", reports=False), PROMPTS, [1, 2, 3], 50_000, {})
    assert all(row["rejection"] == "the engine did not report how many tokens it reused" for row in rows)


def test_a_refusal_names_the_line() -> None:
    with pytest.raises(EngineRefusal, match="line 2 of the trace: too long"):
        send(Narrow("slot"), PROMPTS, [1, 2, 3], 50_000, {})
