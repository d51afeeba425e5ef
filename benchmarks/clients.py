"""Ways to read a stream, side by side in one interleaved run against the null server scripted to 20 ms.

    .venv/bin/python benchmarks/clients.py [samples]

ours: the harness. aiohttp: as commonly written, a session with keep-alive off or on, TTFT when the first chunk is parsed. The truth is the
null server's own report; the median and the 99th percentile of what each client reads beyond it are printed.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import aiohttp

from coldprefix.instrument.null_engines import null_llama_server

TTFT_MS = 20.0


class WithAiohttp:
    """TTFT from before the request to the first event, as benchmark clients commonly measure it."""

    def __init__(self, socket: Path, keep_alive: bool) -> None:
        self._runner = asyncio.Runner()
        self._session = self._runner.run(self._open(socket, keep_alive))

    async def _open(self, socket: Path, keep_alive: bool) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket), force_close=not keep_alive))

    def bias_ms(self, prompt: list[int]) -> float:
        return self._runner.run(self._complete(prompt))

    async def _complete(self, prompt: list[int]) -> float:
        body = {"prompt": prompt, "n_predict": 2, "stream": True}
        first_ms = None
        last = b""
        began = time.perf_counter()
        async with self._session.post("http://engine/completion", json=body) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    first_ms = first_ms or (time.perf_counter() - began) * 1e3
                    last = line
        report = json.loads(last[6:])["null"]
        assert first_ms is not None
        return first_ms - float(report["sent"][0] - report["received"]) * 1e3

    def close(self) -> None:
        self._runner.run(self._session.close())
        self._runner.close()


def main(samples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        null = null_llama_server(Path(folder) / "null.log")
        clients = {
            "aiohttp, a connection each": WithAiohttp(null.client.server.socket, False),
            "aiohttp, keep-alive": WithAiohttp(null.client.server.socket, True),
        }
        found: dict[str, list[float]] = {"ours": [], **{name: [] for name in clients}}
        prompt = list(range(512))
        try:
            plan = [name for name in found for _ in range(samples)]
            random.Random(0).shuffle(plan)
            for name in plan:
                null.script(TTFT_MS, 1.0)
                if name == "ours":
                    done = null.complete(prompt, 2, stream=True)
                    assert done.ttft_ms is not None
                    found[name].append(done.ttft_ms - null.truth.ttft_ms)
                else:
                    found[name].append(clients[name].bias_ms(prompt))
        finally:
            for client in clients.values():
                client.close()
            null.close()
    print(f"beyond the truth, at a TTFT of {TTFT_MS:g} ms, {samples} samples each, interleaved (ms)")
    for name, values in found.items():
        print(f"{name:<28} median {np.median(values):6.3f}   99th percentile {np.percentile(values, 99):6.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
