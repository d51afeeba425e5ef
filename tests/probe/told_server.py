"""A server with OpenAI's API and no engine: it remembers prompts in blocks, and says what it reused in the form it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

BLOCK = 16


class ToldServer:
    """Use it as a context manager. ``form``: tokens that were reused -> what an answer's `usage` holds beside its sums."""

    def __init__(self, form: Callable[[int], dict[str, Any]], takes_ids: bool = True, together: int = 1) -> None:
        kept: set[tuple[int, ...]] = set()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                models = {"object": "list", "data": [{"id": "told", "object": "model", "owned_by": "nobody"}]}
                found = self.path == "/v1/models"
                self._answer(200 if found else 404, "application/json", json.dumps(models if found else {}).encode())

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = asked["prompt"]
                if isinstance(prompt, list) and not takes_ids:
                    self._answer(422, "application/json", b'{"detail": "prompt should be a string"}')
                    return
                ids = tuple(prompt if isinstance(prompt, list) else prompt.split())
                ends = range(BLOCK, len(ids), BLOCK)
                reused = next((end - BLOCK for end in ends if ids[:end] not in kept), max(ends, default=0))
                kept.update(ids[:end] for end in range(BLOCK, len(ids) + 1, BLOCK))
                usage = {"prompt_tokens": len(ids), "completion_tokens": asked["max_tokens"], **form(reused)}
                if not asked["stream"]:
                    self._answer(200, "application/json", json.dumps({"choices": [{"text": " a"}], "usage": usage}).encode())
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for begin in range(0, asked["max_tokens"], together):
                    tokens = min(together, asked["max_tokens"] - begin)
                    # No space: as the specification allows.
                    self.wfile.write(b'data:{"choices": [{"text": " a"}]}\r\n\r\n' * tokens)
                    self.wfile.flush()
                    threading.Event().wait(0.01)
                self.wfile.write(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\r\n\r\ndata: [DONE]\r\n\r\n")

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> ToldServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)
