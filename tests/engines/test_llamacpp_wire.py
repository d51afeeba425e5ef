"""What llama-server is asked."""

from __future__ import annotations

from typing import Any, cast

import pytest

from coldprefix.engines.client import Client
from coldprefix.engines.llamacpp.wire import LlamaWire

TOP = {"top_logprobs": [{"id": 5, "logprob": -0.5}]}
ANSWER = {"timings": {"cache_n": 7}, "completion_probabilities": [TOP], "choices": [{"logprobs": {"content": [TOP]}}]}


class Asked:
    """A server that answers as llama-server does: without probabilities where nothing forces a token that has a text."""

    def ask(self, path: str, body: dict[str, Any], key: str | None = None) -> Any:
        if path == "/tokenize":
            return [262]
        if path == "/detokenize":
            return " the"
        if path == "/apply-template":
            return "user: the"
        forced = body.get("ignore_eos") and body.get("logit_bias") == [[262, 1000]]
        return ANSWER if forced else {"timings": ANSWER["timings"], "content": "", "choices": [{}]}


@pytest.mark.parametrize("form", ["tokens", "chat"])
def test_the_probabilities_are_asked_for_with_the_token_forced(form: str) -> None:
    found = LlamaWire(cast(Client, Asked()), form, prompt_cache=True).next_token([1, 2, 3])
    assert found.cached_tokens == 7 and found.logprobs == {5: -0.5}
