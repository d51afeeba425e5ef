"""A null engine over HTTP: streams like llama-server and like `vllm serve`, at scripted times, and reports when it sent.

    python null_server.py SOCKET

POST /script {"ttft_ms": 20, "gap_ms": 5} sets the times of the answers that follow; each answer's last event has the
member "null": {"received": s, "sent": [s, ...]}, readings of CLOCK_MONOTONIC when the request was complete and after each token's
bytes were with the kernel (the call takes 0.04 ms: so well is the truth known). Standard library only, one thread, one connection at a time, no event loop: nothing stands between its timer
and its socket.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import Any

SPIN_S = 0.002  # sleeping is accurate to about this; the rest is waited for actively
# After POST /script the next request is looked for actively, for so long: waking a sleeping process takes 0.05 to 0.2 ms, which would
# be the null engine's own latency.
ACTIVE_S = 0.2


# What llama-server's wire asks about the vocabulary before it sends prompts.
SAID = {"/tokenize": b'{"tokens":[262]}', "/detokenize": b'{"content":" the"}'}


def wait_until(moment: float) -> None:
    """Return at ``moment`` (`time.perf_counter`), not before and as little after as the machine allows."""
    left = moment - time.perf_counter() - SPIN_S
    if left > 0:
        time.sleep(left)
    while time.perf_counter() < moment:
        pass


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked HTTP answer (RFC 9112, 7.1)."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def token_event(path: str, prompt: int, number: int) -> bytes:
    """What an engine sends for its token ``number``, counted from 1."""
    if path == "/completion":
        return event({"index": 0, "content": " the", "tokens": [262], "stop": False, "id_slot": -1, "tokens_predicted": number})
    usage = {"prompt_tokens": prompt, "total_tokens": prompt + number, "completion_tokens": number}
    return event({"id": "cmpl-0", "object": "text_completion", "model": "model", "choices": [{"index": 0, "text": " the"}], "usage": usage})


def final_event(path: str, prompt: int, tokens: int, received: float, sent: list[float]) -> bytes:
    """The last event, with the engine's usual counts and this one's report."""
    last: dict[str, Any]
    if path == "/completion":
        timings = {"cache_n": 0, "prompt_n": prompt, "prompt_ms": 1e3 * (sent[0] - received)}
        last = {"content": "", "tokens": [], "stop": True, "tokens_predicted": tokens, "tokens_evaluated": prompt, "timings": timings}
    else:
        usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "prompt_tokens_details": {"cached_tokens": 0}}
        last = {"id": "cmpl-0", "object": "text_completion", "model": "model", "choices": [], "usage": usage}
    return event(last | {"null": {"received": received, "sent": sent}})


def receive(connection: socket.socket) -> bytes:
    """What has arrived, at once when it does."""
    connection.setblocking(False)
    until = time.perf_counter() + ACTIVE_S
    while time.perf_counter() < until:
        try:
            return connection.recv(1 << 16)
        except BlockingIOError:
            pass
    connection.setblocking(True)
    return connection.recv(1 << 16)


def accept(listening: socket.socket, active_s: float) -> socket.socket:
    """The next connection; at once when it is there, if that is within ``active_s``."""
    listening.setblocking(False)
    until = time.perf_counter() + active_s
    while time.perf_counter() < until:
        try:
            return listening.accept()[0]
        except BlockingIOError:
            pass
    listening.setblocking(True)
    return listening.accept()[0]


def read_request(connection: socket.socket) -> tuple[str, str, bytes, float] | None:
    """(method, path, body, time at which the last of it arrived); None if the client hung up."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = receive(connection)
        if not more:
            return None
        data += more
    received = time.perf_counter()
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    method, path, _ = lines[0].split(" ", 2)
    length = next((int(line.split(":")[1]) for line in lines[1:] if line.lower().startswith("content-length:")), 0)
    while len(body) < length:
        body += receive(connection)
        received = time.perf_counter()
    return method, path, body, received


def answer(connection: socket.socket, script: dict[str, float]) -> bool:
    """Read one request and answer it. True if a request to be timed comes next."""
    request = read_request(connection)
    connection.setblocking(True)
    if request is None:
        return False
    method, path, body, received = request
    fields = json.loads(body) if body else {}
    if path == "/script":
        script.update(fields)
    if method == "GET" or path in ("/script", *SAID):
        told = SAID.get(path, b"{}")
        described = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(told)}\r\nConnection: close\r\n\r\n"
        connection.sendall(described.encode() + told)
        return path == "/script"
    prompt = len(fields["prompt"])
    tokens = int(fields.get("n_predict") or fields["max_tokens"])
    sent: list[float] = []
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    # Made before their time comes, so that encoding is not part of what is timed.
    pieces = [chunk(token_event(path, prompt, number)) for number in range(1, tokens + 1)]
    for number, piece in enumerate(pieces):
        wait_until(received + (script["ttft_ms"] + number * script["gap_ms"]) / 1e3)
        # As both engines do: the head goes out with the first token, not before it.
        connection.sendall(head + piece if number == 0 else piece)
        sent.append(time.perf_counter())
    connection.sendall(chunk(final_event(path, prompt, tokens, received, sent)) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    return False


def main(path: str) -> None:
    cpus = os.sched_getaffinity(0)
    if len(cpus) > 1:  # it waits actively, and must not do so on the CPU where the harness is about to wake up
        os.sched_setaffinity(0, {max(cpus)})
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    script = {"ttft_ms": 1.0, "gap_ms": 1.0}
    next_is_timed = False
    while True:
        with accept(listening, ACTIVE_S if next_is_timed else 0.0) as connection:
            next_is_timed = answer(connection, script)


if __name__ == "__main__":
    main(sys.argv[1])
