"""Ends this process when an engine inside it does not come back: while it computes, Python can neither raise nor be interrupted."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Watchdog:
    """A thread that looks at a deadline now and then, so seldom that it disturbs no measurement.

    Args:
        what: what its message begins with: the cell and the engine.
        log: of the engine, which its message names.
        timeout_s: the shortest limit that will be set.
    """

    def __init__(self, what: str, log: Path, timeout_s: float) -> None:
        self._what, self._log = what, log
        self._deadline = math.inf
        self._passed = ""
        self._period_s = min(max(timeout_s / 10, 0.5), 10.0)
        self._terminal = os.dup(2)  # an engine inside this process has its output sent to its log
        threading.Thread(target=self._watch, daemon=True).start()

    @contextmanager
    def limit(self, passed: str, timeout_s: float) -> Iterator[None]:
        """End this process, with exit code 1, if what is inside takes longer; ``passed`` is what to say then."""
        self._passed = passed
        self._deadline = time.monotonic() + timeout_s
        try:
            yield
        finally:
            self._deadline = math.inf

    def _watch(self) -> None:
        while time.monotonic() < self._deadline:
            time.sleep(self._period_s)
        os.write(self._terminal, f"\ncoldprefix: {self._what} {self._passed}. Its log: {self._log}\n\n".encode())
        os._exit(1)
