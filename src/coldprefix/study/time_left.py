"""How long a run will still take: said after each cell, from how long the steps before it took."""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections.abc import Collection
from typing import Any

CELL_S = 10.0  # before one has been measured in this run
OTHER_S = 2.0


class TimeLeft(logging.Handler):
    """Listens to what Snakemake tells its loggers: which jobs there are, and when each begins and ends.

    These events are Snakemake's interface for logger plugins (snakemake_interface_logger_plugins.common.LogEvent). Should one of them not
    come any more, nothing is said.

    Args:
        phases: the rules that measure cells.
    """

    def __init__(self, phases: Collection[str]) -> None:
        super().__init__()
        self._phases = phases
        self._left: dict[str, int] = {}  # jobs to do, by rule
        self._running: dict[int, tuple[str, float]] = {}  # by job: its rule, and when it began
        self._took: dict[str, list[float]] = {}  # seconds, by rule

    def emit(self, record: logging.LogRecord) -> None:
        event = str(getattr(record, "event", "")).rpartition(".")[2].lower()
        told: dict[str, Any] = record.__dict__
        if event == "run_info":
            self._left = {rule: int(count) for rule, count in (told.get("stats") or {}).items() if rule != "total"}
        elif event == "job_info":
            self._running[told["jobid"]] = (told["rule_name"], time.monotonic())
        elif event == "job_finished":
            self._finished(told["job_id"])

    def _finished(self, job: int) -> None:
        rule, began = self._running.pop(job, ("", 0.0))
        if rule not in self._left:
            return
        self._left[rule] -= 1
        self._took.setdefault(rule, []).append(time.monotonic() - began)
        if rule in self._phases:
            print(f"coldprefix: {sum(self._left.values())} steps to go, about {words(self.seconds())}", file=sys.stderr, flush=True)

    def seconds(self) -> float:
        """What is left, if each step takes what those of its rule took, and before there was one what any cell took."""
        cells = [seconds for rule, took in self._took.items() if rule in self._phases for seconds in took]
        cell_s = statistics.median(cells) if cells else CELL_S

        def each(rule: str) -> float:
            took = self._took.get(rule)
            return statistics.median(took) if took else cell_s if rule in self._phases else OTHER_S

        return sum(count * each(rule) for rule, count in self._left.items())


def words(seconds: float) -> str:
    """E.g. "12 minutes"."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
