"""Any server that speaks OpenAI's API: of what it is, nothing is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coldprefix.engines.client import Client, Exchange
from coldprefix.engines.contract import Completion
from coldprefix.engines.endpoint.words import text_of
from coldprefix.engines.running import RunningServer
from coldprefix.engines.wire import Rendered, Wire, count, messages, why_uncounted
from coldprefix.errors import ColdprefixError, EngineRefusal

TEXT_ONLY = "it takes text only, so what it reused cannot be held against the tokens that were sent"
REPORTED = ("usage", "prompt_tokens_details", "cached_tokens")


class OpenAiWire(Wire):
    """Only what OpenAI's own API has; a server that does not take token ids (``takes_ids``) is sent a word for each."""

    def __init__(self, client: Client, form: str, model: str) -> None:
        super().__init__(client, form)
        self._model = model
        self.takes_ids = form == "tokens"

    def find_form(self) -> None:
        """See whether it takes token ids. Raises ColdprefixError if it takes neither those nor text."""
        for self.takes_ids in (True, False):
            try:
                self.complete([1000, 1001, 1002, 1003], 1, stream=False)
                return
            except ColdprefixError as error:
                if not self.takes_ids or not _is_refusal(error):
                    raise

    def render(self, prompt: Sequence[int]) -> Rendered:
        return Rendered(list(prompt), list(prompt)) if self.takes_ids else self.as_text(list(prompt))

    def as_text(self, ids: list[int]) -> Rendered:
        text = text_of(ids)
        return Rendered(messages(text) if self.form == "chat" else text, ids)

    def tokenise(self, value: Any) -> list[int]:
        raise ColdprefixError("this server does not tell what tokens it makes of a text")

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        done = self.send(self.render(prompt).value, max_tokens, stream, known=self.takes_ids)
        return done if self.takes_ids or done.cached_tokens is None else replace(done, cached_tokens=None, uncounted=TEXT_ONLY)

    def send(self, value: Any, max_tokens: int, stream: bool, known: bool) -> Completion:
        """As `complete`, of a value as it is. ``known``: does the server's count of its tokens mean something, or is it of words of ours?"""
        body: dict[str, Any] = {"model": self._model, "max_tokens": max_tokens, "stream": stream, "temperature": 0}
        body |= {"stream_options": {"include_usage": True}} if stream else {}
        chat = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
        body |= {"messages" if chat else "prompt": value}
        answer = self.client.exchange("/v1/chat/completions" if chat else "/v1/completions", body, stream)
        times = [time_ms for time_ms, event in answer.events if _says(event)] if stream else []
        final = _usage(answer)
        cached, seen = count(final, *REPORTED), count(final, "usage", "prompt_tokens")
        return Completion(
            started_at=answer.started_at,
            connect_ms=answer.connect_ms,
            total_ms=answer.total_ms,
            token_times_ms=times,
            prompt_tokens=seen if known else None,
            cached_tokens=cached,
            uncounted=why_uncounted(final, *REPORTED),
            evaluated_tokens=seen - cached if known and seen is not None and cached is not None else None,
            generated_tokens=_generated(final, times, max_tokens),
            first_chunk_tokens=1 if times else None,
        )


class RunningOpenAi(RunningServer):
    """Every server that is no other."""

    title = "an OpenAI-compatible server"
    tells_reuse = "usage.prompt_tokens_details.cached_tokens"
    quick = "/v1/models"

    @classmethod
    def is_one(cls, client: Client) -> bool:
        return True

    def wire(self, form: str) -> OpenAiWire:
        wire = OpenAiWire(self.client, form, self.model)
        if form == "tokens":
            wire.find_form()
        return wire


def _is_refusal(error: ColdprefixError) -> bool:
    """400 and 422 say so; llama_cpp.server says 500 of a request that it does not understand. With text it must answer, or that is the error."""
    return isinstance(error, EngineRefusal) or any(f" answered {status}: " in str(error) for status in (422, 500))


def _usage(answer: Exchange) -> dict[str, Any]:
    return next((event for _, event in reversed(answer.events) if isinstance(event.get("usage"), dict)), {})


def _says(event: dict[str, Any]) -> bool:
    """Does a chunk carry text?"""
    choices = event.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    delta = first.get("delta")
    return bool(first.get("text") or (isinstance(delta, dict) and (delta.get("content") or delta.get("reasoning_content"))))


def _generated(final: dict[str, Any], times: list[float], asked: int) -> int:
    """As the server says; where it does not, the chunks that were seen, or what was asked for."""
    told = count(final, "usage", "completion_tokens")
    return told if told is not None else len(times) or asked


RUNNING = RunningOpenAi
