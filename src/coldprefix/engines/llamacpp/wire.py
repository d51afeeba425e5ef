"""llama-server's wire format: /completion with token ids or text, /v1/chat/completions, streamed as server-sent events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from coldprefix.engines.client import Client, Exchange
from coldprefix.engines.contract import TOP, Completion, NextToken
from coldprefix.engines.wire import Rendered, Wire, count, messages, number, why_uncounted
from coldprefix.errors import ColdprefixError

# Every generated token is the same, by a bias: llama-server withholds a chunk whose bytes are not complete UTF-8, and then the first
# token's time is lost. The arithmetic of a step does not depend on the token. Tried in this order.
FORCED_WORDS = (" the", " a", "the", "a", " de", " of", "e", "1")

# Said in every request: a GGUF's metadata (general.sampling.*) may hold others, which llama-server would take as its defaults.
NEUTRAL = {"temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0, "repeat_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}


class LlamaWire(Wire):
    """Requests to llama-server. ``prompt_cache``: may it reuse what the slot holds?"""

    def __init__(self, client: Client, form: str, prompt_cache: bool) -> None:
        super().__init__(client, form)
        self._prompt_cache = prompt_cache

    @cached_property
    def forced_token(self) -> int:
        """A token of the model's own vocabulary that decodes to complete UTF-8. Raises ColdprefixError if none of FORCED_WORDS is one."""
        for word in FORCED_WORDS:
            tokens = self.client.ask("/tokenize", {"content": word, "add_special": False}, "tokens")
            if not isinstance(tokens, list) or len(tokens) != 1 or not isinstance(tokens[0], int):
                continue
            # Some vocabularies put a space before a word that stands alone: what it decodes to is told apart by its letters only.
            if str(self.client.ask("/detokenize", {"tokens": tokens}, "content")).strip() == word.strip():
                return tokens[0]
        raise ColdprefixError(
            f"the model's vocabulary has no token for any of {list(FORCED_WORDS)}, so no generated token is sure to be complete UTF-8, and the "
            "time of the first one would be lost; use phase3b, which needs none"
        )

    def as_text(self, ids: list[int]) -> Rendered:
        text = self.client.ask("/detokenize", {"tokens": ids}, "content")
        value = messages(text) if self.form == "chat" else text
        return Rendered(value, self.tokenise(value))

    def tokenise(self, value: Any) -> list[int]:
        text = self.client.ask("/apply-template", {"messages": value}, "prompt") if self.form == "chat" else value
        asked = {"content": text, "add_special": True, "parse_special": True}
        found: list[int] = self.client.ask("/tokenize", asked, "tokens")
        return found

    @property
    def _forced(self) -> dict[str, Any]:
        return {"ignore_eos": True, "logit_bias": [[self.forced_token, 1000]]}

    def next_token(self, prompt: Sequence[int]) -> NextToken:
        """As of `contract.Session`. The probabilities are those before sampling, which the forced token does not change (seen: to the last digit);
        without it llama-server was seen to leave them out of an answer."""
        body: dict[str, Any] = {"stream": False, **NEUTRAL, **self._forced, "cache_prompt": self._prompt_cache}
        if self.form == "chat":
            body |= {"messages": self.render(prompt).value, "max_tokens": 1, "logprobs": True, "top_logprobs": TOP}
            answer = self.client.ask("/v1/chat/completions", body)
            told = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        else:
            body |= {"prompt": self.render(prompt).value, "n_predict": 1, "n_probs": TOP}
            answer = self.client.ask("/completion", body)
            told = answer["completion_probabilities"][0]["top_logprobs"]
        return NextToken({int(entry["id"]): float(entry["logprob"]) for entry in told}, count(answer, "timings", "cache_n"))

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        rendered = self.render(prompt)
        body: dict[str, Any] = {"stream": stream, **NEUTRAL, **self._forced}
        body |= {"cache_prompt": self._prompt_cache}
        if self.form == "chat":
            body |= {"messages": rendered.value, "max_tokens": max_tokens, "timings_per_token": True}
            body |= {"stream_options": {"include_usage": True}} if stream else {}
            # Chunks of a chat carry no ids: their `timings` count what has been generated.
            final, done = self.openai(self.client.exchange("/v1/chat/completions", body, stream), stream, _generated_in_chat)
        else:
            body |= {"prompt": rendered.value, "n_predict": max_tokens, "return_tokens": True}
            final, done = self._completion(self.client.exchange("/completion", body, stream), stream)
        return replace(
            done,
            cached_tokens=count(final, "timings", "cache_n"),
            uncounted=why_uncounted(final, "timings", "cache_n"),
            evaluated_tokens=count(final, "timings", "prompt_n"),
            engine_prompt_ms=number(final, "timings", "prompt_ms"),
        )

    def _completion(self, answer: Exchange, stream: bool) -> tuple[dict[str, Any], Completion]:
        _, final = answer.events[-1]
        if final.get("stop") is not True:
            server = self.client.server
            raise ColdprefixError(f"{server.name} ended a stream before its last event. Its log: {server.log}")
        chunks = [(time_ms, len(event.get("tokens") or [])) for time_ms, event in answer.events] if stream else []
        chunks = [chunk for chunk in chunks if chunk[1]]
        return final, Completion(
            started_at=answer.started_at,
            connect_ms=answer.connect_ms,
            total_ms=answer.total_ms,
            token_times_ms=[time_ms for time_ms, tokens in chunks for _ in range(tokens)],
            prompt_tokens=count(final, "tokens_evaluated"),  # the name deceives: it is the whole prompt
            generated_tokens=count(final, "tokens_predicted") or 0,
            first_chunk_tokens=chunks[0][1] if chunks else None,
        )


def _generated_in_chat(event: dict[str, Any]) -> int | None:
    choices = event.get("choices") or [{}]
    return count(event, "timings", "predicted_n") if choices[0].get("delta", {}).get("content") else None
