"""What others take of this machine while we measure, and how fast its CPUs run."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import psutil


class Load:
    """The machine's load between two looks, without ours.

    From /proc/stat minus the engine's processes and this one; the kernel counts in ticks of 10 ms, enough for a trial.

    Args:
        process_ids: of the engine.
        workflow: process id of Snakemake, whose share is told apart; None if there is none.
    """

    def __init__(self, process_ids: Iterable[int], workflow: int | None = None) -> None:
        self._processes = [psutil.Process(), *_living(process_ids)]
        self._workflow = _living([workflow] if workflow else [])
        self._start = self._read()

    def _read(self) -> tuple[float, float, float, float, float]:
        """(seconds used by anyone, by us, by the workflow's process, stolen by the hypervisor, wall seconds)"""
        machine = psutil.cpu_times()
        busy = sum(machine) - machine.idle - getattr(machine, "iowait", 0.0) - getattr(machine, "guest", 0.0)
        return busy, _used(self._processes), _used(self._workflow), getattr(machine, "steal", 0.0), time.monotonic()

    def since_last(self) -> dict[str, Any]:
        """`foreign_cpu`, `workflow_cpu`, `steal_cpu` and `cpu_mhz` (tables.REQUESTS) since the last call; shares are None for spans too
        short to tell."""
        busy, own, workflow, steal, span = (after - before for after, before in zip(self._read(), self._start, strict=True))
        self._start = self._read()
        shares: list[float | None] = [None, None, None]
        if span > 0.05:
            cpu_s = span * (psutil.cpu_count() or 1)
            shares = [max(0.0, busy - own - workflow) / cpu_s, workflow / cpu_s if self._workflow else None, steal / cpu_s]
        frequency = psutil.cpu_freq()
        mhz = frequency.current if frequency and frequency.current else None
        return {"foreign_cpu": shares[0], "workflow_cpu": shares[1], "steal_cpu": shares[2], "cpu_mhz": mhz}


def _living(process_ids: Iterable[int]) -> list[psutil.Process]:
    found = []
    for pid in process_ids:
        with suppress(psutil.Error):  # a helper that has just ended
            found.append(psutil.Process(pid))
    return found


def _used(processes: Iterable[psutil.Process]) -> float:
    """CPU seconds that processes have used, without those of their children."""
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total
