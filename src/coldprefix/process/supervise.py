"""Runs one program and leaves nothing of it behind, whatever happens to the program that asked for it.

    python supervise.py OWNER_PID GRACE_S FOLDER COMMAND...

The kernel tells this process when its owner has died (a pidfd), and hands it the orphans among its
descendants (PR_SET_CHILD_SUBREAPER): vLLM's EngineCore and Worker outlive a killed API server otherwise (tried with
0.32.0). Then, on SIGTERM, or when the program ends by itself, it gets SIGTERM, GRACE_S seconds, then every descendant
SIGKILL; then FOLDER, which holds a server's socket, is removed ("": there is none). The exit code is the program's, 128 + n if signal n
ended it, 127 if it could not be started. Standard library only; Linux.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def when_ended(pid: int, act: Callable[[], None]) -> None:
    """Call ``act`` in a thread of its own when process ``pid`` has died. It sleeps in the kernel until then.

    Raises:
        ProcessLookupError: it has died already.
        OSError, AttributeError: this system has no pidfd.
    """
    alive = os.pidfd_open(pid)

    def wait() -> None:
        select.select([alive], [], [])  # readable when it has died
        act()

    threading.Thread(target=wait, daemon=True).start()


def descendants(pid: int) -> Iterator[int]:
    """Process ids below ``pid``, from /proc; a process that vanishes meanwhile is left out."""
    try:
        tasks = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
        children = [int(c) for t in tasks for c in Path(f"/proc/{pid}/task/{t}/children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield child
        yield from descendants(child)


def _stop(server: subprocess.Popen[bytes], grace_s: float) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(grace_s)
    except subprocess.TimeoutExpired:
        print(f"supervise: no end {grace_s:.0f} s after SIGTERM, killing", file=sys.stderr, flush=True)


def _is_tracker(pid: int) -> bool:
    """Is it Python's tracker of shared memory and semaphores? It removes what killed processes leave in /dev/shm, then ends by itself."""
    try:
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _kill_all(find: Callable[[], Sequence[int]]) -> None:
    """Kill what ``find`` finds, until it finds nothing; trackers last, if they do not end when all others have."""
    deadline = time.monotonic() + 10
    patience = time.monotonic() + 3
    while (left := find()) and time.monotonic() < deadline:
        trackers = [] if time.monotonic() > patience else [pid for pid in left if _is_tracker(pid)]
        for pid in left:
            if pid in trackers:
                continue
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        time.sleep(0.01)


def _below() -> list[int]:
    """What is left below this process; the dead among it are taken away."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    return list(descendants(os.getpid()))


def _session(leader: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # The second field is the program's name in brackets and may hold anything.
            state, _parent, _group, session = (folder / "stat").read_bytes().rpartition(b")")[2].split()[:4]
        except OSError:  # it has just ended
            continue
        if int(session) == leader and state not in b"ZX":
            found.append(int(folder.name))
    return found


def _writes_to(pid: int, log: Path) -> bool:
    """Does a process have ``log`` as its output?"""
    for number in (1, 2):
        try:
            if Path(f"/proc/{pid}/fd/{number}").samefile(log):
                return True
        except OSError:
            pass
    return False


def end_session(leader: int, log: Path) -> None:
    """Kill what a supervisor that was killed itself has left: its orphans went to init, but are in its session still, with its log.

    Only those: the session's number can be another's by now, whose leader has ended, too.
    """
    if leader not in _session(leader):
        _kill_all(lambda: [pid for pid in _session(leader) if _writes_to(pid, log)])


def supervised(command: Sequence[str | Path], owner: int | None = None, grace_s: float = 2.0, folder: str = "") -> list[str]:
    """The command line that runs ``command`` under a supervisor; ``owner`` is this process if None."""
    return [sys.executable, "-S", __file__, str(owner or os.getpid()), str(grace_s), folder, *map(str, command)]


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that ends, with everything below it, when the block is left by an exception or this process dies.

    Args:
        options: of `subprocess.Popen`, which this is to its user.
    """
    # Nothing that such a program could ask is for the person who typed the command.
    options = {"stdin": subprocess.DEVNULL, **options}
    with subprocess.Popen(supervised(command), text=True, errors="replace", **options) as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            raise


def run(command: Sequence[str | Path], timeout_s: float | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` with the output captured, of a program that does not outlive this one.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``timeout_s``.
    """
    with started(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}) as process:
        out, err = process.communicate(timeout=timeout_s)
    return subprocess.CompletedProcess(list(map(str, command)), process.returncode, out, err)


def main(owner: int, grace_s: float, folder: str, command: list[str]) -> int:
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    # Waiting in sigwait costs no wake-ups: a measurement runs beside this process.
    ends = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends | {signal.SIGCHLD})
    try:  # SIGTERM stays pending until `sigwait` below
        when_ended(owner, lambda: os.kill(os.getpid(), signal.SIGTERM))
    except ProcessLookupError:
        shutil.rmtree(folder, ignore_errors=True)
        return 1

    def in_child() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # the server must not outlive this process either

    try:
        server = subprocess.Popen(command, preexec_fn=in_child)
    except OSError as error:
        print(f"cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        return 127
    while server.poll() is None:
        if signal.sigwait(ends | {signal.SIGCHLD}) in ends:
            _stop(server, grace_s)
            break
    code = server.poll()
    _kill_all(_below)
    shutil.rmtree(folder, ignore_errors=True)
    if code is None:
        return 128 + signal.SIGKILL
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]))
