"""What `auto` means on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal


def resolve_accelerator(wanted: str) -> Literal["cpu", "cuda"]:
    """What `accelerator: auto` means on this machine."""
    if wanted == "auto":
        return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"
    return "cuda" if wanted == "cuda" else "cpu"


def resolve_threads(wanted: int | str) -> int:
    """What `threads: auto` means on this machine: the physical cores that this process may use."""
    import psutil

    if isinstance(wanted, int):
        return wanted
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))
