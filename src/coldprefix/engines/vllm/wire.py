"""The wire format of `vllm serve`: /v1/completions with token ids or text, /v1/chat/completions, streamed as server-sent events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coldprefix.engines.client import Client
from coldprefix.engines.contract import TOP, Completion, NextToken
from coldprefix.engines.wire import Rendered, Wire, count, messages, number, why_uncounted

MODEL = "model"  # the name under which it is served


# Said in every request: a model's generation_config.json may hold others, which the server would take as its defaults.
NEUTRAL = {"top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1, "frequency_penalty": 0, "presence_penalty": 0}


class VllmWire(Wire):
    """Requests to `vllm serve`. ``model``: the name under which it serves."""

    def __init__(self, client: Client, form: str, model: str = MODEL) -> None:
        super().__init__(client, form)
        self._model = model
        self.also: dict[str, Any] = {}  # that goes with every timed request

    def as_text(self, ids: list[int]) -> Rendered:
        text = self.client.ask("/detokenize", {"model": self._model, "tokens": ids}, "prompt")
        value = messages(text) if self.form == "chat" else text
        return Rendered(value, self.tokenise(value))

    def tokenise(self, value: Any) -> list[int]:
        asked: dict[str, Any] = {"model": self._model, "add_special_tokens": self.form == "text"}
        asked |= {"messages": value, "add_generation_prompt": True} if self.form == "chat" else {"prompt": value}
        found: list[int] = self.client.ask("/tokenize", asked, "tokens")
        return found

    def next_token(self, prompt: Sequence[int]) -> NextToken:
        """As of `contract.Session`."""
        body: dict[str, Any] = {"model": self._model, "max_tokens": 1, "temperature": 0, **NEUTRAL, "return_tokens_as_token_ids": True}
        if self.form == "chat":
            body |= {"messages": self.render(prompt).value, "logprobs": True, "top_logprobs": TOP}
            answer = self.client.ask("/v1/chat/completions", body)
            told = {entry["token"]: entry["logprob"] for entry in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
        else:
            body |= {"prompt": self.render(prompt).value, "logprobs": TOP}
            answer = self.client.ask("/v1/completions", body)
            told = answer["choices"][0]["logprobs"]["top_logprobs"][0]
        found = {int(name.removeprefix("token_id:")): float(value) for name, value in told.items()}
        return NextToken(found, count(answer, "usage", "prompt_tokens_details", "cached_tokens"))

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": max_tokens,
            "stream": stream,
            "temperature": 0,
            **NEUTRAL,
            "ignore_eos": True,
        }
        body |= self.also
        body |= {"messages" if self.form == "chat" else "prompt": self.render(prompt).value}
        if stream:
            # Usage with every chunk tells how many tokens it carries: usually one, more when the API server falls behind.
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        path = "/v1/chat/completions" if self.form == "chat" else "/v1/completions"
        before = self._hits()
        final, done = self.openai(self.client.exchange(path, body, stream), stream, _generated)
        after = self._hits()
        cached = count(final, "usage", "prompt_tokens_details", "cached_tokens")
        known = done.prompt_tokens is not None and cached is not None
        return replace(
            done,
            cached_tokens=cached,
            uncounted=why_uncounted(final, "usage", "prompt_tokens_details", "cached_tokens"),
            counted_tokens=after - before if after is not None and before is not None else None,
            evaluated_tokens=done.prompt_tokens - cached if known else None,  # type: ignore[operator]
            engine_ttft_ms=number(final, "metrics", "time_to_first_token_ms"),
        )

    def _hits(self) -> int | None:
        """The server's counter of prompt tokens found in its prefix cache; outside the clock. None: it has none."""
        status, text = self.client.get("/metrics")
        found = [line for line in text.splitlines() if line.startswith("vllm:prefix_cache_hits_total{")] if status == 200 else []
        return int(float(found[0].rpartition(" ")[2])) if found else None


def _generated(event: dict[str, Any]) -> int | None:
    return count(event, "usage", "completion_tokens") if event.get("choices") else None
