"""The client of a server that somebody else runs: the same clock, over TCP, TLS or its Unix socket."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil

from coldprefix.engines.client import ACCEPT_S, Client, Exchange
from coldprefix.engines.endpoint.address import Address, Resolved, Way
from coldprefix.errors import ColdprefixError
from coldprefix.process.server import Server

NOWHERE = Path("where that server runs")  # of a server that coldprefix has not started
LOG = f" Its log: {NOWHERE}"  # which says nothing
LOOK_S = 5.0  # longest wait for an answer outside the clock
HINTS = {
    401: "it wants another key, or one at all: name the environment variable that holds it in api_key_env (--api-key-env)",
    403: "it wants another key, or one at all: name the environment variable that holds it in api_key_env (--api-key-env)",
    429: "it limits how often we may ask; nothing was asked twice, since a second try is another measurement. Measure when it has room",
    502: "the server behind it does not answer",
    503: "it is not ready, or has no room; nothing was asked twice, since a second try is another measurement",
}


def key_of(variable: str | None) -> str:
    """The key in an environment variable; "" where none is named. Raises ColdprefixError if the variable is empty."""
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ColdprefixError(f"the environment variable {variable} holds no key (api_key_env, --api-key-env)")
    return key


class Running(Server):
    """A server that somebody else runs: it is neither started nor stopped."""

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.key = key
        self.log = NOWHERE
        self.pid = 0

    def check_alive(self, doing: str, wait_s: float = 0.0) -> None:
        """Whether it is alive is seen by its answers only."""

    def process_ids(self) -> list[int]:
        """Not known: `RunningClient.processes` looks for them."""
        return []

    def close(self) -> None:
        """It stays."""


class RunningClient(Client):
    """Talks to a server at an address. No message of it holds the key.

    Attributes:
        ways: what getting each connection took.

    Raises:
        ColdprefixError: as of `Resolved`.
    """

    def __init__(self, name: str, address: Address, key: str, timeout_s: float, remote: bool) -> None:
        super().__init__(Running(name, key), timeout_s)
        self._to = Resolved(address, remote)
        self.address = address
        self.host = address.header
        self.prefix = address.prefix
        self.ways: list[Way] = []

    @property
    def local(self) -> bool:
        """Is it on this machine?"""
        return self._to.local

    def get(self, path: str, timeout_s: float | None = None) -> tuple[int, str]:
        status, text = super().get(path, timeout_s or min(self.timeout_s, LOOK_S))
        return status, self._hide(text)

    def ask(self, path: str, body: dict[str, Any] | None, *answer: str) -> Any:
        try:
            return super().ask(path, body, *answer)
        except ColdprefixError as error:
            raise type(error)(self._hide(str(error)).removesuffix(LOG)) from None

    def exchange(self, path: str, body: dict[str, Any], stream: bool) -> Exchange:
        try:
            return super().exchange(path, body, stream)
        except ColdprefixError as error:
            text = self._hide(str(error)).removesuffix(LOG)
            hint = next((hint for status, hint in HINTS.items() if f" answered {status}: " in text), "")
            hint = hint or ("has it been restarted? Then what it had cached is gone" if " broke off " in text else "")
            raise type(error)(f"{text}\n{hint}".strip()) from None

    def round_trip_ms(self, path: str, times: int = 5) -> float | None:
        """The fastest of some tiny requests, connecting not included: what the way there and the server's HTTP take, in ms."""
        found = []
        for _ in range(times):
            began = time.perf_counter()
            before = len(self.ways)
            status, _ = self.get(path)
            took = (time.perf_counter() - began) * 1e3
            way = self.ways[-1] if len(self.ways) > before else None
            if status and way:
                found.append(took - way.connect_ms - (way.tls_ms or 0.0) - ACCEPT_S * 1e3)
        return max(0.0, min(found)) if found else None

    def processes(self) -> list[int]:
        """The processes of a server of this user on this machine, by the port that it listens on; [] where they cannot be seen."""
        if not self.local or self.address.path:
            return []
        try:
            found = {
                connection.pid
                for connection in psutil.net_connections("tcp")
                if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (self.address.port,) and connection.pid
            }
            return sorted(found | {child.pid for pid in found for child in psutil.Process(pid).children(recursive=True)})
        except psutil.Error:
            return []

    def _connect(self, timeout_s: float) -> socket.socket:
        try:
            connection, way = self._to.connect(timeout_s)
        except ConnectionRefusedError:
            raise ColdprefixError(
                f"nothing listens at {self.address.url}; does the server run, and did it run a moment ago? Nothing that a restarted one had "
                "cached is left"
            ) from None
        except TimeoutError:
            raise ColdprefixError(f"{self.address.url} cannot be reached within {timeout_s:.0f} s") from None
        except OSError as error:
            raise ColdprefixError(f"{self.address.url} cannot be reached: {error.strerror or error}") from None
        self.ways.append(way)
        return connection

    def _hide(self, text: str) -> str:
        """Without the key, which some servers repeat."""
        return text.replace(self.server.key, "(the key)") if self.server.key else text
