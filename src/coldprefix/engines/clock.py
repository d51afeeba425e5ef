"""The clock of all four backends: monotonic, read where a token arrives, with garbage collection held off meanwhile."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Milliseconds since it was made, from `time.perf_counter` (CLOCK_MONOTONIC on Linux: shared by all processes).

    Attributes:
        zero: reading of `time.perf_counter` at the start, in s.
        started_at: wall clock at the start, in s since the epoch.
    """

    def __init__(self) -> None:
        self.started_at = time.time()
        self.zero = time.perf_counter()

    def ms(self) -> float:
        return (time.perf_counter() - self.zero) * 1e3

    def arrivals(self, tokens: Iterator[object], count: int) -> list[float]:
        """Take ``count`` tokens from a generator; the time of each, in ms. Raises StopIteration if there are fewer."""
        times = []
        for _ in range(count):
            next(tokens)
            times.append((time.perf_counter() - self.zero) * 1e3)
        return times


@contextmanager
def undisturbed() -> Iterator[None]:
    """No garbage collection inside: one that falls between a token's arrival and the reading of the clock counts as latency."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def long_lived() -> Iterator[None]:
    """What exists now, an engine's modules and caches, is not looked through by collections inside.

    Collecting before each request takes 0.3 s with vLLM imported, and no time that can be measured so.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
