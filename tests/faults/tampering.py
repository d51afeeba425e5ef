"""A proxy that takes the place of a running server's socket and spoils answers, or does something to the server at a given request.

The socket's file is replaced in one step by one of ours, while the server goes on listening behind its other name; so any server can be
tampered with, at any time, and the measuring job sees nothing but its answers.
"""

from __future__ import annotations

import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

STEPS = ("warmup", "query", "rewarm", "stream")
BODY = b"\r\n\r\n"


def sockets(tmp: Path) -> set[Path]:
    """Of the servers of coldprefix whose temporary folder is ``tmp``."""
    return set(tmp.glob("coldprefix-*/engine.sock"))


def request_number(trial: int, step: str) -> int:
    """The place of a step among the completion requests of a cell."""
    return len(STEPS) * trial + STEPS.index(step)


def _plain(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


# What a spoilt answer looks like. llama-server and vLLM name their counts differently.
SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "500": lambda _: _plain(b"500 Internal Server Error", b'{"error": {"message": "out of memory"}}'),
    "no JSON": lambda _: _plain(b"200 OK", b"<html>proxy error</html>"),
    "empty": lambda _: b"",
    "truncated": lambda data: data[: data.index(BODY) + (len(data) - data.index(BODY)) * 2 // 3],
    "an error in the stream": lambda _: _plain(b"200 OK", b'data: {"error": {"message": "KV cache is full"}}\n\n'),
    "no counts": lambda data: data.replace(b'"cache_n"', b'"cache_m"').replace(b'"cached_tokens"', b'"cached_others"'),
    "no usage": lambda data: data.replace(b'"usage"', b'"image"'),
    "wrong counts": lambda data: re.sub(rb'("(?:cache_n|cached_tokens)":\s?)(\d*)\d', rb"\g<1>\g<2>7", data),
}


class Proxy(threading.Thread):
    """Between the measuring job and a server whose socket is ``path``.

    Args:
        begin: number of the first completion request that something is done to.
        spoil: what is made of the whole answer to that request and all later ones.
        act: done once, when the request of that number has been passed on and, if it streams, the first piece has come back.
    """

    def __init__(
        self, path: Path, begin: int, spoil: Callable[[bytes], bytes] | None = None, act: Callable[[], object] | None = None
    ) -> None:
        super().__init__(daemon=True)
        self._begin, self._spoil, self._act = begin, spoil, act
        self.acted_at: float | None = None  # by time.monotonic
        self.error: BaseException | None = None  # why ``act`` failed: then nothing was done to the server
        self._seen = 0
        self.real = path.with_name("real.sock")  # where the server itself listens now
        ours = path.with_name("ours.sock")
        os.link(path, self.real)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(ours))
        self._listening.listen()
        ours.rename(path)
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # closed
                return
            with connection:
                try:
                    self._serve(connection)
                except OSError:
                    pass  # the server or its client has gone

    def _serve(self, connection: socket.socket) -> None:
        request = _receive(connection)
        number = -1
        if request.startswith((b"POST /completion ", b"POST /v1/completions ")):
            number = self._seen
            self._seen += 1
        touched = 0 <= self._begin <= number
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(str(self.real))
            server.sendall(request)
            streams = b'"stream": true' in request
            if touched and self._act and not streams:
                self._do()
            whole = b""
            while True:
                readable, _, _ = select.select([server, connection], [], [])
                if server not in readable:  # the client has gone: a server that ends waits for us to go, too
                    return
                if not (piece := server.recv(1 << 16)):
                    break
                if touched and self._spoil:
                    whole += piece
                    continue
                connection.sendall(piece)
                if touched and self._act and b"data: " in piece:
                    self._do()
        if touched and self._spoil:
            self.acted_at = self.acted_at or time.monotonic()
            connection.sendall(self._spoil(whole))

    def _do(self) -> None:
        act, self._act = self._act, None
        if act:
            self.acted_at = time.monotonic()
            try:
                act()
            except BaseException as error:  # an AssertionError, too: it would end with this thread
                self.error = error

    def close(self) -> None:
        self._begin = -1
        try:
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        except OSError:
            pass
        self.join(5)
        self._listening.close()


def _receive(connection: socket.socket) -> bytes:
    data = b""
    while BODY not in data:
        data += (piece := connection.recv(1 << 16))
        if not piece:
            raise ConnectionError
    length = re.search(rb"(?i)content-length: (\d+)", data)
    whole = data.index(BODY) + len(BODY) + (int(length[1]) if length else 0)
    while len(data) < whole:
        data += (piece := connection.recv(1 << 16))
        if not piece:
            raise ConnectionError
    return data
