#!/usr/bin/env python3
"""The real llama-server behind a proxy that spoils its answers; put in the place of llama-server by test_faults.py.

The file `mode` beside this one says how. This process becomes the real server, so that process ids and loaded libraries are its own;
the proxy is a child.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent  # not resolved: the real one lies elsewhere
AFTER = 6  # requests that are answered as they should be


def receive(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(1 << 16)
    length = re.search(rb"(?i)content-length: (\d+)", data)
    head = data.index(b"\r\n\r\n") + 4
    while length and len(data) < head + int(length[1]):
        data += connection.recv(1 << 16)
    return data


def answer_of(real: str, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(real)
        connection.sendall(request)
        data = b""
        while piece := connection.recv(1 << 16):
            data += piece
    return data


def spoil(mode: str, data: bytes) -> bytes:
    if mode == "500":
        body = b'{"error": {"message": "out of memory"}}'
        return b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    if mode == "no JSON":
        body = b"<html>proxy error</html>"
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    if mode == "truncated":
        return data[: len(data) * 2 // 3]
    if mode == "no counts":
        return data.replace(b'"cache_n"', b'"cache_m"')
    if mode == "wrong counts":
        return re.sub(rb'("cache_n":)(\d*)\d', rb"\g<1>\g<2>7", data)
    raise ValueError(mode)


def proxy(listening: socket.socket, real: str) -> None:
    mode = (HERE / "mode").read_text()
    answered = 0
    while True:
        connection, _ = listening.accept()
        with connection:
            request = receive(connection)
            try:
                data = answer_of(real, request)
            except OSError:  # it is not there yet, or no longer
                continue
            if request.startswith(b"POST /completion"):
                answered += 1
                if answered > AFTER:
                    data = spoil(mode, data)
            connection.sendall(data)


def main() -> None:
    arguments = sys.argv[1:]
    place = arguments.index("--host") + 1
    path = arguments[place]
    real = f"{path.removesuffix('.sock')}.real.sock"  # llama-server knows a socket by its suffix
    arguments[place] = real
    parent = os.getpid()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        while not Path(real).exists():
            time.sleep(0.01)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            proxy(listening, real)
    os.execv(HERE / "llama-server.real", [str(HERE / "llama-server"), *arguments])


if __name__ == "__main__":
    main()
