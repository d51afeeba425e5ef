"""One measurement at a time on a machine, and one run at a time in a folder.

The workflow's profile keeps the jobs of one run apart; the machine's lock also holds where the profile is not applied, and between
two runs, of the same user or not. The kernel drops both locks when their holder dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from coldprefix.errors import ColdprefixError
from coldprefix.process import lease, queue
from coldprefix.process.identity import MACHINE_LOCK

MACHINE = MACHINE_LOCK
STRANGERS_S = 1.0  # between looks at whether another user's server is still there


def _open(path: Path) -> int:
    """A file that every user of the machine may lock, none of them being able to make another's program write elsewhere.

    Raises:
        ColdprefixError: somebody has put something else there.
    """
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR):
        # Opened before it is created: Linux refuses O_CREAT for a file of another user in /tmp (fs.protected_regular).
        try:
            descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue
        except FileExistsError:  # somebody has just made it
            continue
        except OSError as error:
            raise ColdprefixError(
                f"cannot open {path}, which keeps two measurements on a machine apart: {error.strerror}; remove it, or ask its owner to"
            ) from None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            os.close(descriptor)
            break
        if found.st_uid == os.getuid():
            os.fchmod(descriptor, 0o666)
        return descriptor
    raise ColdprefixError(f"{path}, which keeps two measurements on a machine apart, is no plain file; remove it, or ask its owner to")


@contextmanager
def exclusive(what: str, owner: int | None = None) -> Iterator[None]:
    """Hold the machine's lock; a second measurement waits and says for what.

    Servers that other runs of this user keep for their next cell are ended: nothing runs beside a measurement. Those of other users
    are waited for, without the lock, which their run needs to go on.

    Args:
        owner: process id of this run's workflow, whose own servers may stay.

    Raises:
        ColdprefixError: the lock cannot be opened.
    """
    with os.fdopen(_open(MACHINE), "r+", encoding="utf-8", errors="replace") as handle:
        told = ""
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # Whoever may lock it may have written anything.
                handle.seek(0)
                told = _say_once(what, "".join(c for c in handle.read(400) if c.isprintable()).strip() or "another measurement", told)
                fcntl.flock(handle, fcntl.LOCK_EX)
            others = lease.strangers()
            if not others:
                break
            fcntl.flock(handle, fcntl.LOCK_UN)
            told = _say_once(what, f"the run of another user, which keeps a server in {others[0]}", told)
            time.sleep(STRANGERS_S)
        for server in lease.end_idle(owner):
            print(f"coldprefix: {what}: {server} was idle and has been ended; that run will start another", file=sys.stderr, flush=True)
        _write(handle, f"{what} (process {os.getpid()} in {Path.cwd()})")
        try:
            yield
        finally:
            _write(handle, "")


def _say_once(what: str, holder: str, told: str) -> str:
    if holder != told:
        print(f"coldprefix: {what} waits for {holder}", file=sys.stderr, flush=True)
    return holder


def _write(handle: IO[str], text: str) -> None:
    """Who holds the lock: for a message only, so a full disk is no reason to stop."""
    try:
        handle.seek(0)
        handle.truncate()
        handle.write(text)
        handle.flush()
    except OSError:
        pass


def hold_folder(folder: Path, may_unlock: bool = True) -> IO[str]:
    """Mark a folder as in use by this process until it ends; remove Snakemake's locks if every run that could have left them is dead.

    Snakemake's own lock is a file: a run that is killed leaves it, and every later run would stop. Every Snakemake of ours, a dry run
    too, holds a shared lock of the kernel's here; whoever gets the exclusive one for a moment is alone.

    Args:
        may_unlock: this is the Snakemake that was started by hand, not one that it has submitted to a cluster.

    Returns:
        What must be kept until this process ends.

    Raises:
        ColdprefixError: an earlier run was killed whose jobs are still in a cluster's queue: they would write what this run measures.
    """
    mark = folder / ".snakemake" / "coldprefix.lock"
    mark.parent.mkdir(exist_ok=True)
    stale = [file for file in (folder / ".snakemake" / "locks").glob("*") if file.is_file()]
    unlock = may_unlock and stale and not queue.may_write(folder)
    handle = open(mark, "w")  # noqa: SIM115  (held by the caller)
    if unlock:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for file in stale:
                file.unlink()
            print("coldprefix: an earlier run in this folder was killed; its lock has been removed", file=sys.stderr, flush=True)
        except BlockingIOError:
            pass  # another run is alive: Snakemake will say so
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle
