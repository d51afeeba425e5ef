"""A server for tests of the client and of the process handling: speaks like llama-server over a Unix socket.

    python fake_server.py SOCKET MODE

It is no engine and measures nothing; each mode does one thing that a real server has been seen to do, or could.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

from aiohttp import web

SOCKET, MODE = sys.argv[1:3]


def event(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def final(n: int) -> dict[str, object]:
    timings = {"cache_n": 0, "prompt_n": n, "prompt_ms": 20.0}
    return {"content": "", "tokens": [], "stop": True, "tokens_predicted": 3, "tokens_evaluated": n, "timings": timings}


async def completion(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    n = len(body["prompt"])
    if MODE == "status500":
        return web.json_response({"error": {"message": "out of memory"}}, status=500)
    if MODE == "hang":
        await asyncio.sleep(60)
    if MODE == "not-json":
        return web.Response(text="<html>proxy</html>")
    if not body["stream"]:
        return web.json_response(final(n))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    if MODE == "error-event":
        await response.write(event({"error": {"code": 500, "message": "KV cache is full"}}))
        return response
    await asyncio.sleep(0.02)
    await response.write(event({"content": " the", "tokens": [262], "stop": False}))
    if MODE == "die-in-stream":
        os.kill(os.getpid(), signal.SIGKILL)
    if MODE == "truncate":
        await response.write(b'data: {"content": " th')
        return response
    if MODE == "cut":
        assert request.transport is not None
        request.transport.close()
        return response
    await asyncio.sleep(0.02)
    # Two events in one write, and one event in two writes: the client must cut them right.
    await response.write(
        event({"content": " the", "tokens": [262], "stop": False}) + event({"content": " a", "tokens": [257], "stop": False})
    )
    last = event(final(n))
    await response.write(last[:10])
    await asyncio.sleep(0.01)
    if MODE != "no-end":
        await response.write(last[10:])
    return response


async def health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"}, status=503 if MODE == "never-ready" else 200)


if __name__ == "__main__":
    if MODE == "die-at-start":
        print("error: failed to open GGUF file", flush=True)
        sys.exit(3)
    if MODE in ("deaf", "family", "crew"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if MODE in ("family", "crew"):  # a worker, as vLLM has; of a family it is in a session of its own
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=MODE == "family")
        time.sleep(0.2)
    application = web.Application()
    application.add_routes([web.post("/completion", completion), web.get("/health", health)])
    web.run_app(application, path=SOCKET, print=None, handle_signals=MODE not in ("deaf", "family", "crew"))
