"""The wire format of `vllm serve`: /v1/completions with token ids or text, /v1/chat/completions, streamed as server-sent events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coldprefix.engines.contract import Completion
from coldprefix.engines.wire import Rendered, Wire, count, messages, number

MODEL = "model"  # the name under which it is served


class VllmWire(Wire):
    """Requests to `vllm serve`."""

    def as_text(self, ids: list[int]) -> Rendered:
        text = self.client.ask("/detokenize", {"model": MODEL, "tokens": ids}, "prompt")
        asked: dict[str, Any] = {"model": MODEL, "add_special_tokens": self.form == "text"}
        asked |= {"messages": messages(text), "add_generation_prompt": True} if self.form == "chat" else {"prompt": text}
        return Rendered(asked.get("messages", text), self.client.ask("/tokenize", asked, "tokens"))

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        body: dict[str, Any] = {"model": MODEL, "max_tokens": max_tokens, "stream": stream, "temperature": 0, "ignore_eos": True}
        body |= {"messages" if self.form == "chat" else "prompt": self.render(prompt).value}
        if stream:
            # Usage with every chunk tells how many tokens it carries: usually one, more when the API server falls behind.
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        path = "/v1/chat/completions" if self.form == "chat" else "/v1/completions"
        final, done = self.openai(self.client.exchange(path, body, stream), stream, _generated)
        cached = count(final, "usage", "prompt_tokens_details", "cached_tokens")
        known = done.prompt_tokens is not None and cached is not None
        return replace(
            done,
            cached_tokens=cached,
            evaluated_tokens=done.prompt_tokens - cached if known else None,  # type: ignore[operator]
            engine_ttft_ms=number(final, "metrics", "time_to_first_token_ms"),
        )


def _generated(event: dict[str, Any]) -> int | None:
    return count(event, "usage", "completion_tokens") if event.get("choices") else None
