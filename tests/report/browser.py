"""Headless Chromium by its DevTools protocol: enough to open a page, click through it and take its picture."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
import psutil

QUIET = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Browser:
    """One page. Console errors, uncaught exceptions and requests for anything but the page itself are collected."""

    def __init__(self) -> None:
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        assert program, "the report's test needs Chromium: apt-get install chromium (or set COLDPREFIX_NO_BROWSER=1 to skip it)"
        self._folder = tempfile.TemporaryDirectory(prefix="coldprefix-browser-")
        command = [program, "--headless=new", "--no-sandbox", *QUIET, "--remote-debugging-port=0", f"--user-data-dir={self._folder.name}"]
        env = {**os.environ, "TMPDIR": self._folder.name}
        self._process = subprocess.Popen([*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)
        assert self._process.stderr is not None
        line = next(line for line in self._process.stderr if "DevTools listening" in line)
        found = re.search(r"ws://(\S+?)/", line)
        assert found, line
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._next = 0
        self._runner = asyncio.Runner()
        self._runner.run(self._connect(found[1]))
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    async def _connect(self, address: str) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://{address}/json") as response:
            targets = await response.json()
        page = next(target for target in targets if target["type"] == "page")
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

    async def _disconnect(self) -> None:
        await self._socket.close()
        await self._session.close()

    def call(self, method: str, until: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result, at the earliest when the event ``until`` has come."""
        return self._runner.run(asyncio.wait_for(self._call(method, until, parameters), 60))

    async def _call(self, method: str, until: str | None, parameters: dict[str, Any]) -> dict[str, Any]:
        self._next += 1
        number, waiting = self._next, until
        result: dict[str, Any] | None = None
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while result is None or waiting:
            message = json.loads((await self._socket.receive()).data)
            name, content = message.get("method"), message.get("params", {})
            waiting = None if name == waiting else waiting
            if message.get("id") == number:
                assert "error" not in message, message
                result = message["result"]
            elif name == "Runtime.exceptionThrown" or (name == "Log.entryAdded" and content["entry"]["level"] == "error"):
                self.errors.append(json.dumps(content)[:500])
            elif name == "Network.requestWillBeSent" and not content["request"]["url"].startswith("data:"):
                self.requests.append(content["request"]["url"])
        return result

    def open(self, path: Path, width: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self.call("Page.navigate", until="Page.loadEventFired", url=path.as_uri())

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        self._runner.run(self._disconnect())
        self._runner.close()
        # Its helpers write to its folder until they have ended, too.
        helpers = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        psutil.wait_procs(helpers, 20)
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._folder.cleanup()
