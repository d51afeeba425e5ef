"""What an engine inside this process prints goes to its log, not over the progress bar."""

from __future__ import annotations

import os
import sys
from pathlib import Path


class EngineOutput:
    """Standard output and error of this process, at the level of the kernel, appended to ``log`` until `restore`."""

    def __init__(self, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        _flush()
        self._saved = os.dup(1), os.dup(2)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)

    def restore(self) -> None:
        """Give this process its own output back; a second call does nothing."""
        if self._saved:
            _flush()
            for number, saved in zip((1, 2), self._saved, strict=True):
                os.dup2(saved, number)
                os.close(saved)
            self._saved = ()  # type: ignore[assignment]


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
