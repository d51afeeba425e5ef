"""A door before a real server: passes requests on, and does what proxies and servers in trouble have been seen to do."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from types import TracebackType

import aiohttp
from aiohttp import web

Reply = tuple[int, str] | None
HOP_BY_HOP = {"transfer-encoding", "content-length", "connection", "keep-alive"}


class Door:
    """Use it as a context manager; ``url`` is where it stands.

    Args:
        upstream: what it stands before.
        buffer: give an answer when it is complete only, as nginx does by default.
        before: called with the number of each POST (1, 2, ...) and its headers; what it returns is the answer, None passes the request on.
        tls: the server's side.
    """

    def __init__(
        self,
        upstream: str,
        buffer: bool = False,
        before: Callable[[int, dict[str, str]], Reply] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._upstream, self._buffer, self._before, self._tls = upstream, buffer, before, tls
        self._posts = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.method == "POST":
            self._posts += 1
        if self._before:
            reply = await asyncio.to_thread(self._before, self._posts, dict(request.headers))
            if reply:
                return web.Response(status=reply[0], text=reply[1])
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, self._upstream + request.path_qs, data=body, headers=headers) as answer,
        ):
            kept = {key: value for key, value in answer.headers.items() if key.lower() not in HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            whole = await answer.read() if self._buffer else None
            await response.prepare(request)
            if whole is not None:
                await response.write(whole)
            else:
                async for piece in answer.content.iter_any():
                    await response.write(piece)
            return response

    async def _serve(self) -> None:
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._ready.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def __enter__(self) -> Door:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
