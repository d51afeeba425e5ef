"""The client side of an engine over HTTP: one request at a time over a private socket, with the clock next to the bytes.

The clock reads when `recv` returns; nothing is parsed until the answer is complete. An event loop, a chunk parser and a JSON
parser between the socket and the clock cost 0.3 to 1 ms a request, and more at the 99th percentile (benchmarks/clients.py).
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import h11

from coldprefix.engines.clock import Stopwatch, undisturbed
from coldprefix.errors import ColdprefixError, EngineRefusal
from coldprefix.process.server import Server

Pieces = list[tuple[float, bytes]]

# Between connecting and sending: the server accepts meanwhile, which takes it 0.05 to 0.3 ms and is set-up, too. What is timed is a
# request on a connection that stands on both sides, as with a client that keeps its connections.
ACCEPT_S = 0.002


DYING_S = 0.2  # a server that is dying takes a moment to be seen dead


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
    """Talks HTTP to a `Server`, which it owns.

    One connection per request, closed by the server after its answer: llama-server does so after each stream, whatever it is asked.
    Connecting is timed apart.

    Attributes:
        host: what requests call the server; prefix: what stands before each path.
    """

    host = "engine"
    prefix = ""

    def __init__(self, server: Server, timeout_s: float) -> None:
        self.server = server
        self.timeout_s = timeout_s

    def get(self, path: str, timeout_s: float | None = None) -> tuple[int, str]:
        """Status and text of a GET; status 0 when nothing listens yet, or nothing comes back in time."""
        return self._plain("GET", path, timeout_s=timeout_s)

    def post(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """Status and text of a POST outside the clock."""
        return self._plain("POST", path, json.dumps(body).encode() if body is not None else b"")

    def ask(self, path: str, body: dict[str, Any] | None, *answer: str) -> Any:
        """POST ``body`` outside the clock, or GET if it is None, and return the field ``answer`` of what comes back.

        Raises:
            ColdprefixError: another status than 200, no JSON, or no such field.
        """
        status, text = self.get(path) if body is None else self.post(path, body)
        try:
            if status == 200:
                found = json.loads(text)
                for key in answer:
                    found = found[key]
                return found
        except (ValueError, KeyError, TypeError):
            pass
        self.server.check_alive(f"answering {path}")
        said = f"with {status}: {text[:300]}" if status else f"not, or not within {self.timeout_s:.0f} s (timeout_s)"
        raise ColdprefixError(f"{self.server.name} answers {path} {said}. Its log: {self.server.log}")

    def told(self, path: str) -> dict[str, Any]:
        """The JSON object that a GET answers; {} where it answers something else."""
        status, text = self.get(path)
        try:
            found = json.loads(text) if status == 200 else {}
        except ValueError:
            found = {}
        return found if isinstance(found, dict) else {}

    def _plain(self, method: str, path: str, payload: bytes = b"", timeout_s: float | None = None) -> tuple[int, str]:
        connection, request = self._request(method, path, payload)
        try:
            _, _, pieces = self._send(request, timeout_s or self.timeout_s)
            status, body = _parse_http(connection, pieces)
        except (OSError, h11.RemoteProtocolError):
            return 0, ""
        return status, b"".join(data for _, data in body).decode(errors="replace")

    def exchange(self, path: str, body: dict[str, Any], stream: bool) -> Exchange:
        """POST ``body`` and collect the answer.

        Raises:
            EngineRefusal: the engine answered 400.
            ColdprefixError: no answer in time, an error status, an error inside the stream, something that is not JSON, or
                the server died.
        """
        connection, request = self._request("POST", path, json.dumps(body).encode())
        what = f"answering a request to {path}"
        try:
            with undisturbed():
                watch, connect_ms, pieces = self._send(request, self.timeout_s)
            status, answer = _parse_http(connection, pieces)
            if not status:
                raise ConnectionError("no answer")
        except TimeoutError:
            self.server.check_alive(what)
            raise ColdprefixError(
                f"{self.server.name} gave no complete answer within {self.timeout_s:.0f} s (timeout_s). Its log: {self.server.log}"
            ) from None
        except (OSError, h11.RemoteProtocolError) as error:
            self.server.check_alive(what, DYING_S)
            raise ColdprefixError(f"{self.server.name} broke off {what}: {error!r}. Its log: {self.server.log}") from None
        if status != 200:
            text = b"".join(data for _, data in answer)[:500].decode(errors="replace")
            kind = EngineRefusal if status == 400 else ColdprefixError
            raise kind(f"{self.server.name} answered {status}: {text}. Its log: {self.server.log}")
        total_ms = answer[-1][0] if answer else pieces[-1][0]
        events = self._events(answer) if stream else [(total_ms, self._parse(b"".join(data for _, data in answer)))]
        return Exchange(watch.started_at, connect_ms, total_ms, events)

    def _request(self, method: str, path: str, payload: bytes) -> tuple[h11.Connection, bytes]:
        """The bytes of a request, and the connection that will read the answer to it."""
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        headers = [
            ("Host", self.host),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(payload))),
            ("Connection", "close"),
        ]
        if self.server.key:
            headers.append(("Authorization", f"Bearer {self.server.key}"))
        parts = [h11.Request(method=method, target=self.prefix + path, headers=headers), h11.Data(data=payload), h11.EndOfMessage()]
        return connection, b"".join(connection.send(part) or b"" for part in parts)

    def _send(self, request: bytes, timeout_s: float) -> tuple[Stopwatch, float, Pieces]:
        """(watch started when the connection stood, ms that connecting took, each piece received with its time)

        Raises:
            TimeoutError: no complete answer within ``timeout_s``.
            OSError: no connection, or it broke.
        """
        pieces: Pieces = []
        connecting = time.perf_counter()
        with self._connect(timeout_s) as connection:
            connected = time.perf_counter()
            time.sleep(ACCEPT_S)
            watch = Stopwatch()
            connection.sendall(request)
            while data := connection.recv(1 << 16):
                now = watch.ms()
                pieces.append((now, data))
                connection.settimeout(max(timeout_s - now / 1e3, 1e-3))
        return watch, (connected - connecting) * 1e3, pieces

    def _connect(self, timeout_s: float) -> socket.socket:
        """A connection that stands. Raises OSError."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(timeout_s)
            connection.connect(str(self.server.socket))
        except BaseException:
            connection.close()
            raise
        return connection

    def _events(self, answer: Pieces) -> list[tuple[float, dict[str, Any]]]:
        """Server-sent events, as far as engines use them: lines "data:...", one for each event, events ended by an empty line."""
        events = []
        pending = b""
        for arrived, data in answer:
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                    events.append((arrived, self._parse(line[5:])))
                elif line.startswith(b"error: "):
                    raise ColdprefixError(f"{self.server.name} broke off with an error: {line[7:500].decode(errors='replace')}")
        if pending.strip():
            raise ColdprefixError(f"{self.server.name} ended a stream in mid-event: {pending[:200]!r}. Its log: {self.server.log}")
        if not events:
            raise ColdprefixError(f"{self.server.name} ended a stream without an event. Its log: {self.server.log}")
        return events

    def _parse(self, text: bytes) -> dict[str, Any]:
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
            return self.server.wait_ready(lambda: self.get("/health", 5.0)[0] == 200, timeout_s)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the server."""
        self.server.close()


def _parse_http(connection: h11.Connection, pieces: Pieces) -> tuple[int, Pieces]:
    """Status of an answer and the pieces of its body, each with the time at which its last byte arrived.

    Raises:
        h11.RemoteProtocolError: not HTTP, or it ended too early.
    """
    status = 0
    body: Pieces = []
    for arrived, data in [*pieces, (0.0, b"")]:  # the empty piece is the end of the connection
        connection.receive_data(data)
        while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body.append((arrived, bytes(event.data)))
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                return status, body
    return status, body
