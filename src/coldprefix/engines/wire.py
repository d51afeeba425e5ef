"""What goes over the wire to an HTTP engine, and how its answers are read: apart from how its process is started."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldprefix.engines.client import Client, Exchange
from coldprefix.engines.contract import Completion
from coldprefix.errors import ColdprefixError

# One user message in ChatML, for both engines: GPT-2 has no template of its own, and llama-server's fallback is this one.
CHAT_TEMPLATE = Path(__file__).with_name("chatml.jinja")


@dataclass(frozen=True)
class Rendered:
    """A prompt as it goes over the wire.

    Attributes:
        value: token ids, text, or a list of chat messages.
        seen: the token ids that the engine makes of it, by its own tokenizer.
    """

    value: Any
    seen: list[int]


class Wire(ABC):
    """Requests to an engine and its answers, in the form "tokens", "text" or "chat" (config.yaml: request_form)."""

    def __init__(self, client: Client, form: str) -> None:
        self.client = client
        self.form = form
        self._rendered: dict[tuple[int, ...], Rendered] = {}

    def render(self, prompt: Sequence[int]) -> Rendered:
        """The prompt in this form. Texts are kept: a prompt comes twice in a trial, and is rendered outside the clock."""
        ids = list(prompt)
        if self.form == "tokens":
            return Rendered(ids, ids)
        if tuple(ids) not in self._rendered:
            self._rendered[tuple(ids)] = self.as_text(ids)
        return self._rendered[tuple(ids)]

    def know(self, value: Any) -> list[int]:
        """The token ids that the engine makes of a text or of messages; `complete` then sends the value itself for them."""
        seen = self.tokenise(value)
        self._rendered[tuple(seen)] = Rendered(value, seen)
        return seen

    @abstractmethod
    def as_text(self, ids: list[int]) -> Rendered:
        """The prompt as text or chat messages, by the engine's own tokenizer."""

    @abstractmethod
    def tokenise(self, value: Any) -> list[int]:
        """The token ids that the engine makes of a text, or in the form "chat" of messages. Raises ColdprefixError if it cannot say."""

    @abstractmethod
    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        """As of `contract.Session`."""

    def openai(
        self, answer: Exchange, stream: bool, generated: Callable[[dict[str, Any]], int | None]
    ) -> tuple[dict[str, Any], Completion]:
        """An answer of the OpenAI API's kind: its last event, and what all such answers say in the same way.

        Args:
            generated: tokens generated so far, as a chunk says; None if it carries no token.

        Raises:
            ColdprefixError: it ended before its counts.
        """
        _, final = answer.events[-1]
        if "usage" not in final:
            server = self.client.server
            raise ColdprefixError(f"{server.name} ended a stream before its usage counts. Its log: {server.log}")
        times, first_chunk_tokens = arrivals(answer, generated) if stream else ([], None)
        return final, Completion(
            started_at=answer.started_at,
            connect_ms=answer.connect_ms,
            total_ms=answer.total_ms,
            token_times_ms=times,
            prompt_tokens=count(final, "usage", "prompt_tokens"),
            generated_tokens=count(final, "usage", "completion_tokens") or 0,
            first_chunk_tokens=first_chunk_tokens,
        )


def arrivals(answer: Exchange, generated: Callable[[dict[str, Any]], int | None]) -> tuple[list[float], int | None]:
    """(arrival of each generated token in ms, tokens of the first chunk that carries any), from what chunks say of tokens so far."""
    times: list[float] = []
    first: int | None = None
    for time_ms, event in answer.events:
        known = generated(event)
        if known is not None and known > len(times):
            first = first or known
            times += [time_ms] * (known - len(times))
    return times, first


def messages(text: str) -> list[dict[str, str]]:
    """A prompt as a chat of one message."""
    return [{"role": "user", "content": text}]


def count(container: Any, *path: str) -> int | None:
    """An integer inside nested objects, or None if it is not reported. A number of another type counts as not reported."""
    for key in path:
        container = container.get(key) if isinstance(container, dict) else None
    return container if isinstance(container, int) and not isinstance(container, bool) and container >= 0 else None


def why_uncounted(container: Any, *path: str) -> str | None:
    """Why `count` takes what stands there for no count, in words; None where it does not."""
    for place, key in enumerate(path):
        if not isinstance(container, dict) or key not in container:
            return f"{'.'.join(path[: place + 1])} is absent"
        container = container[key]
    if count({"it": container}, "it") is not None:
        return None
    shown = {str: f"the text {container!r}", float: f"{container!r}, no whole number", bool: f"the truth value {container!r}"}
    return f"{'.'.join(path)} is {'null' if container is None else shown.get(type(container), repr(container)[:60])}"


def number(container: Any, *path: str) -> float | None:
    """A finite number inside nested objects, or None if it is not reported."""
    for key in path:
        container = container.get(key) if isinstance(container, dict) else None
    return float(container) if isinstance(container, (int, float)) and not isinstance(container, bool) and container == container else None
