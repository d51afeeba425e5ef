"""The client side of both HTTP engines: one request at a time over a private socket, with the clock close to the bytes."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from coldprefix.errors import ColdprefixError, EngineRefusal
from coldprefix.server import Server


@dataclass
class Exchange:
    """What came back for one request, and when. Times in ms from the moment the connection stood.

    Attributes:
        events: (time, event) for each server-sent event; for an answer in one piece, that one.
    """

    started_at: float = 0.0
    connect_ms: float = 0.0
    total_ms: float = 0.0
    events: list[tuple[float, dict[str, Any]]] = field(default_factory=list)


class Client:
    """Talks HTTP to a `Server`, which it owns. Synchronous outside, aiohttp inside, no other work in its event loop.

    llama-server closes the connection after each stream without saying so, hence a connection per request; connecting is
    timed apart.
    """

    def __init__(self, server: Server, timeout_s: float) -> None:
        self.server = server
        self.timeout_s = timeout_s
        self._runner = asyncio.Runner()
        self._session = self._runner.run(self._open())

    async def _open(self) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()

        async def on_start(_session: Any, context: Any, _params: Any) -> None:
            context.trace_request_ctx["connecting"] = time.perf_counter()

        async def on_end(_session: Any, context: Any, _params: Any) -> None:
            context.trace_request_ctx["connected"] = time.perf_counter()

        trace.on_connection_create_start.append(on_start)
        trace.on_connection_create_end.append(on_end)
        return aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(self.server.socket), force_close=True),
            timeout=aiohttp.ClientTimeout(total=self.timeout_s),
            trace_configs=[trace],
        )

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of a GET; status 0 when nothing listens yet."""
        return self._runner.run(self._plain("GET", path))

    def post(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """Status and text of a POST outside the clock."""
        return self._runner.run(self._plain("POST", path, body))

    def ask(self, path: str, body: dict[str, Any], *answer: str) -> Any:
        """POST ``body`` outside the clock and return the field ``answer`` of what comes back.

        Raises:
            ColdprefixError: another status than 200, or no such field.
        """
        status, text = self.post(path, body)
        try:
            if status == 200:
                found = json.loads(text)
                for key in answer:
                    found = found[key]
                return found
        except (ValueError, KeyError, TypeError):
            pass
        self.server.check_alive(f"answering {path}")
        raise ColdprefixError(f"{self.server.name} answers {path} with {status}: {text[:300]}. Its log: {self.server.log}")

    async def _plain(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        try:
            async with self._session.request(method, f"http://engine{path}", json=body, trace_request_ctx={}) as response:
                return response.status, await response.text()
        except (aiohttp.ClientConnectionError, OSError):
            return 0, ""

    def exchange(self, path: str, body: dict[str, Any], stream: bool) -> Exchange:
        """POST ``body`` and collect the answer.

        Raises:
            ColdprefixError: no answer in time, an error status, an error inside the stream, something that is not JSON, or
                the server died.
        """
        payload = json.dumps(body).encode()
        what = f"answering a request to {path}"
        gc.collect()
        gc.disable()  # a collection inside the event loop would be counted as latency
        try:
            return self._runner.run(self._exchange(path, payload, stream))
        except TimeoutError:
            self.server.check_alive(what)
            raise ColdprefixError(f"{self.server.name} gave no complete answer within {self.timeout_s:.0f} s (timeout_s)") from None
        except aiohttp.ClientError as error:
            time.sleep(0.2)  # a server that is dying takes a moment to be seen dead
            self.server.check_alive(what)
            raise ColdprefixError(f"{self.server.name} broke off {what}: {error!r}. Its log: {self.server.log}") from None
        finally:
            gc.enable()

    async def _exchange(self, path: str, payload: bytes, stream: bool) -> Exchange:
        result = Exchange()
        times: dict[str, float] = {}
        result.started_at = time.time()
        headers = {"Content-Type": "application/json"}
        async with self._session.post(f"http://engine{path}", data=payload, headers=headers, trace_request_ctx=times) as response:
            zero = times["connected"]
            result.connect_ms = (zero - times["connecting"]) * 1e3
            if response.status != 200:
                text = (await response.text())[:500]
                kind = EngineRefusal if response.status == 400 else ColdprefixError
                raise kind(f"{self.server.name} answered {response.status}: {text}. Its log: {self.server.log}")
            if stream:
                await self._read_events(response, zero, result)
            else:
                text = await response.text()
                result.total_ms = (time.perf_counter() - zero) * 1e3
                result.events.append((result.total_ms, self._parse(text)))
        return result

    async def _read_events(self, response: aiohttp.ClientResponse, zero: float, result: Exchange) -> None:
        """Server-sent events, as far as these two engines use them: lines "data: ...", events ended by an empty line."""
        pending = b""
        async for data in response.content.iter_any():
            now = (time.perf_counter() - zero) * 1e3
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                    result.events.append((now, self._parse(line[6:])))
                elif line.startswith(b"error: "):
                    raise ColdprefixError(f"{self.server.name} broke off with an error: {line[7:500].decode(errors='replace')}")
        result.total_ms = (time.perf_counter() - zero) * 1e3
        if pending.strip():
            raise ColdprefixError(f"{self.server.name} ended a stream in mid-event: {pending[:200]!r}. Its log: {self.server.log}")
        if not result.events:
            raise ColdprefixError(f"{self.server.name} ended a stream without an event. Its log: {self.server.log}")

    def _parse(self, text: bytes | str) -> dict[str, Any]:
        try:
            event = json.loads(text)
        except ValueError:
            raise ColdprefixError(
                f"{self.server.name} sent something that is not JSON: {text[:200]!r}. Its log: {self.server.log}"
            ) from None
        if not isinstance(event, dict) or "error" in event:
            raise ColdprefixError(f"{self.server.name} answered with an error: {str(event)[:500]}. Its log: {self.server.log}")
        return event

    def wait_healthy(self, timeout_s: float) -> float:
        """Wait until GET /health answers 200. Returns the seconds it took; closes everything if it does not come to that.

        Raises:
            ColdprefixError: see Server.wait_ready.
        """
        try:
            return self.server.wait_ready(lambda: self.get("/health")[0] == 200, timeout_s)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hang up first, so that the server need not finish a stream, then stop it."""
        try:
            self._runner.run(self._session.close())
            self._runner.close()
        finally:
            self.server.close()


@dataclass(frozen=True)
class Rendered:
    """A prompt as it goes over the wire.

    Attributes:
        value: token ids, text, or a list of chat messages.
        seen: the token ids that the engine makes of it, by its own tokenizer.
    """

    value: Any
    seen: list[int]


# One user message in ChatML, for both engines: GPT-2 has no template of its own, and llama-server's fallback is this one.
CHAT_TEMPLATE = Path(__file__).with_name("chatml.jinja")


def messages(text: str) -> list[dict[str, str]]:
    """A prompt as a chat of one message."""
    return [{"role": "user", "content": text}]


def count(container: Any, *path: str) -> int | None:
    """An integer inside nested objects, or None if it is not reported. A number of another type counts as not reported."""
    for key in path:
        container = container.get(key) if isinstance(container, dict) else None
    return container if isinstance(container, int) and not isinstance(container, bool) and container >= 0 else None


def number(container: Any, *path: str) -> float | None:
    """A finite number inside nested objects, or None if it is not reported."""
    for key in path:
        container = container.get(key) if isinstance(container, dict) else None
    return float(container) if isinstance(container, (int, float)) and not isinstance(container, bool) and container == container else None
