"""A program of the workflow ends with the workflow, however that ends: SIGKILL reaches one process only. Standard library only."""

from __future__ import annotations

import os
import select
import signal
import threading


def end_with_parent() -> None:
    """Send this process SIGTERM when its parent, as of now, has died. Where the system has no pidfd (Linux 5.3) nothing happens."""
    if not hasattr(os, "pidfd_open"):
        return
    try:
        parent = os.pidfd_open(os.getppid())
    except OSError:
        return

    def wait() -> None:
        select.select([parent], [], [])  # readable when the parent has died
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
