"""What tells one process, and one machine's processes, from another's (Linux)."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from functools import cache
from pathlib import Path

# The file whose lock stands for the machine. Not in $TMPDIR, which differs between users and sessions, while the machine that they measure
# on is the same. Another one is for tests, whose times nobody reads: it stands for a machine of its own, and records name it.
USUAL_LOCK = "/tmp/coldprefix-measuring.lock"  # noqa: S108  (locks.py opens it with care)
MACHINE_LOCK = Path(os.environ.get("COLDPREFIX_MACHINE_LOCK") or USUAL_LOCK)


def born(pid: int) -> int:
    """When a process was started, in clock ticks since the machine was: with its number it is the process's identity.

    From /proc/PID/stat, not from a wall clock: `psutil` adds the time at which the machine was started, which moves with that clock.

    Raises:
        OSError: there is no such process.
    """
    return int(_stat(pid)[19])


def is_alive(pid: int, start: int) -> bool:
    """Does the process that was `born` then still run? A dead one whose parent has not taken it away does not."""
    try:
        found = _stat(pid)
    except OSError:
        return False
    return int(found[19]) == start and found[0] not in (b"Z", b"X")


def age_s(pid: int) -> float:
    """Seconds since a process was started. Raises OSError if there is none."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - born(pid) / os.sysconf("SC_CLK_TCK")


@cache
def machine() -> str:
    """16 hex digits that tell this machine from others, also of the same make: a hash of its id, its host name and its lock, where that is
    not the usual one. It names nobody: the id, of 128 random bits, is secret enough. A machine without one is another after each start.
    """
    found = (Path(name) for name in ("/etc/machine-id", "/var/lib/dbus/machine-id", "/proc/sys/kernel/random/boot_id"))
    number = next((text for file in found if file.is_file() and (text := file.read_text().strip())), "")
    parts = [number, socket.gethostname(), *([str(MACHINE_LOCK)] if str(MACHINE_LOCK) != USUAL_LOCK else [])]
    return hashlib.sha256("\0".join(["coldprefix", *parts]).encode()).hexdigest()[:16]


def this_system() -> str:
    """The start of this machine and the space of process ids: another one's, as of a container that shares /tmp, are not ours."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"


def _stat(pid: int) -> list[bytes]:
    """Fields of /proc/PID/stat from the third, the state, on: the second is the program's name in brackets and may hold anything."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
