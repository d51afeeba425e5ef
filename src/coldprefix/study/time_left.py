"""How long a run will still take: said after each cell, from how long the steps before it took."""

from __future__ import annotations

import logging
import statistics
import sys
import time
from typing import Any

MEASURING_S = 10.0  # a cell, before one has been measured here
OTHER_S = 2.0  # any other step


class TimeLeft(logging.Handler):
    """Listens to what Snakemake tells its loggers (snakemake_interface_logger_plugins.common.LogEvent): which jobs there are, start and end."""

    def __init__(self) -> None:
        super().__init__()
        self._left: dict[str, int] = {}  # jobs to do by rule
        self._running: dict[int, tuple[str, float]] = {}  # by job: its rule and when it began
        self._took: dict[str, list[float]] = {}

    @classmethod
    def watch(cls, logger: logging.Logger) -> None:
        """Listen to Snakemake's logger."""
        logger.addHandler(cls())

    def emit(self, record: logging.LogRecord) -> None:
        event = str(getattr(record, "event", "") or "").rpartition(".")[2].lower()
        told: Any = record.__dict__
        if event == "run_info":
            stats = told.get("stats") or {}
            self._left = {rule: int(count) for rule, count in stats.items() if rule != "total"}
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
        if rule.startswith("phase") and not rule.endswith("_panels"):
            steps = sum(self._left.values())
            print(f"coldprefix: {steps} steps to go, about {words(self.seconds())} left", file=sys.stderr, flush=True)

    def seconds(self) -> float:
        """What is left, if each step takes what those of its rule took, and before that what cells took."""
        cells = [seconds for rule, took in self._took.items() if _measures(rule) for seconds in took]
        guess = statistics.median(cells) if cells else MEASURING_S

        def each(rule: str) -> float:
            took = self._took.get(rule)
            return statistics.median(took) if took else guess if _measures(rule) else OTHER_S

        return sum(count * each(rule) for rule, count in self._left.items())


def _measures(rule: str) -> bool:
    return rule.startswith("phase") and not rule.endswith("_panels")


def words(seconds: float) -> str:
    """E.g. "12 minutes"."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
