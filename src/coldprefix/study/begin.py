"""What has to be done once when the jobs of a run begin, for a workflow that is a module of another: Snakemake calls no `onstart` of those."""

from __future__ import annotations

import logging
from collections.abc import Callable


class Begin(logging.Handler):
    """Calls ``do`` once, before the first job of a run starts; never in a dry run.

    It listens for the event job_started, which Snakemake tells its loggers before it starts jobs
    (snakemake_interface_logger_plugins.common.LogEvent).
    """

    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__()
        self._do: Callable[[], None] | None = do

    def emit(self, record: logging.LogRecord) -> None:
        event = str(getattr(record, "event", "")).rpartition(".")[2].lower()
        if event == "job_started" and self._do is not None:
            do, self._do = self._do, None
            do()
