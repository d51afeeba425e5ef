"""What tells one process, and one machine's processes, from another's (Linux)."""

from __future__ import annotations

import os
import time
from pathlib import Path


def born(pid: int) -> int:
    """When a process was started, in clock ticks since the machine was: with its number it is the process's identity.

    From /proc/PID/stat, not from a wall clock: `psutil` adds the time at which the machine was started, which moves with that clock.

    Raises:
        OSError: there is no such process.
    """
    # The second field is the program's name in brackets and may hold anything.
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])


def age_s(pid: int) -> float:
    """Seconds since a process was started. Raises OSError if there is none."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - born(pid) / os.sysconf("SC_CLK_TCK")


def this_system() -> str:
    """The start of this machine and the space of process ids: another one's, as of a container that shares /tmp, are not ours."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
