"""One measurement at a time on a machine, whatever `--cores` says and whichever folder it is started from.

The workflow's profile keeps jobs apart within one run; this lock also holds where the profile is not applied, and between
two runs.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def lock_path() -> Path:
    """One per machine and user; the kernel drops the lock when its holder dies, however it dies."""
    return Path(tempfile.gettempdir()) / f"coldprefix-{os.getuid()}.lock"


@contextmanager
def exclusive(what: str) -> Iterator[None]:
    """Hold the machine's lock; a second measurement waits and says for what."""
    descriptor = os.open(lock_path(), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = handle.read().strip() or "another measurement"
            print(f"coldprefix: {what} waits for {holder}", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        handle.truncate()
        handle.write(f"{what} (process {os.getpid()} in {Path.cwd()})")
        handle.flush()
        try:
            yield
        finally:
            handle.seek(0)
            handle.truncate()
