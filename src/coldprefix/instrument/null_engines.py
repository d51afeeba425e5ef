"""Null engines: engines that answer at scripted times and report when they did, behind the harness's own client, clock and wire formats.

Only the program that listens on the socket is another one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from coldprefix.engines.client import Client, Exchange, Pieces
from coldprefix.engines.clock import Stopwatch, undisturbed
from coldprefix.engines.contract import Completion
from coldprefix.engines.llamacpp.wire import LlamaWire
from coldprefix.engines.vllm.wire import VllmWire
from coldprefix.engines.wire import Wire
from coldprefix.instrument import null_server
from coldprefix.process.server import Server, clean_environment

TIMEOUT_S = 60.0


@dataclass
class Truth:
    """What a null engine did, by its own account; readings of `time.perf_counter` in s."""

    received: float = 0.0
    sent: list[float] = field(default_factory=list)

    @property
    def ttft_ms(self) -> float:
        return (self.sent[0] - self.received) * 1e3

    @property
    def tokens_per_s(self) -> float:
        return (len(self.sent) - 1) / (self.sent[-1] - self.sent[0])


class NullEngine(Protocol):
    """A session whose times are known."""

    @property
    def truth(self) -> Truth: ...

    @property
    def zero(self) -> float:
        """When the harness started its watch."""

    def script(self, ttft_ms: float, gap_ms: float) -> None: ...

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion: ...

    def close(self) -> None: ...


class _Recording(Client):
    """The harness's client, which also keeps its zero and what the null server reported."""

    zero = 0.0
    truth = Truth()

    def _send(self, request: bytes, timeout_s: float) -> tuple[Stopwatch, float, Pieces]:
        result = super()._send(request, timeout_s)
        self.zero = result[0].zero
        return result

    def exchange(self, path: str, body: dict[str, Any], stream: bool) -> Exchange:
        answer = super().exchange(path, body, stream)
        self.truth = Truth(**answer.events[-1][1]["null"])
        return answer


class NullHttp:
    """Streams like the server whose wire format this is: the harness's own requests and its own reading of the answers.

    Args:
        wire: makes the wire from a client.
    """

    def __init__(self, log: Path, wire: Callable[[Client], Wire]) -> None:
        command = [sys.executable, null_server.__file__, "{socket}"]
        self.client = _Recording(Server("null engine", command, clean_environment({}), log, 1.0), TIMEOUT_S)
        self.client.wait_healthy(30)
        self._wire = wire(self.client)

    @property
    def truth(self) -> Truth:
        return self.client.truth

    @property
    def zero(self) -> float:
        return self.client.zero

    def script(self, ttft_ms: float, gap_ms: float) -> None:
        self.client.post("/script", {"ttft_ms": ttft_ms, "gap_ms": gap_ms})

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        return self._wire.complete(prompt, max_tokens, stream)

    def close(self) -> None:
        self.client.close()


def null_llama_server(log: Path) -> NullHttp:
    """Streams like llama-server."""
    return NullHttp(log, lambda client: LlamaWire(client, "tokens", prompt_cache=True))


def null_vllm_server(log: Path) -> NullHttp:
    """Streams like `vllm serve`."""
    return NullHttp(log, lambda client: VllmWire(client, "tokens"))


class NullPython:
    """A generator of tokens in this process, timed as the binding's is."""

    def __init__(self) -> None:
        self.truth = Truth()
        self.zero = 0.0
        self._times = (1.0, 1.0)

    def script(self, ttft_ms: float, gap_ms: float) -> None:
        self._times = (ttft_ms, gap_ms)

    def _tokens(self, count: int) -> Iterator[int]:
        first, gap = self._times
        self.truth = Truth(time.perf_counter(), [])
        for number in range(count):
            null_server.wait_until(self.truth.received + (first + number * gap) / 1e3)
            self.truth.sent.append(time.perf_counter())
            yield 262

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        with undisturbed():
            watch = Stopwatch()
            times = watch.arrivals(self._tokens(max_tokens), max_tokens)
        self.zero = watch.zero
        return Completion(
            started_at=watch.started_at,
            connect_ms=None,
            total_ms=times[-1],
            token_times_ms=times,
            prompt_tokens=len(prompt),
            cached_tokens=0,
            evaluated_tokens=len(prompt),
            engine_prompt_ms=None,
            engine_ttft_ms=None,
            generated_tokens=max_tokens,
        )

    def close(self) -> None:
        pass
