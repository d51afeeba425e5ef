"""Starts an engine's server, waits until it is ready, stops it; the measuring job owns it, or the workflow (see supervise.py)."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from coldprefix.errors import ColdprefixError
from coldprefix.process import supervise

POLL_S = 0.05
LOG_LINES = 15
SOCKET = "engine.sock"
SOCKET_BYTES = 107  # sizeof(sockaddr_un.sun_path) less the final zero

# What a server may inherit. Everything else stays out: LLAMA_ARG_*, VLLM_*, OMP_NUM_THREADS and the like change an engine
# silently, and tokens are nobody's business.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "SSL_CERT_FILE")


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of an engine: what INHERITED names, and ``extra``."""
    return {**{key: os.environ[key] for key in INHERITED if key in os.environ}, **extra}


def tail(log: Path, lines: int = LOG_LINES) -> str:
    """The end of a log, indented."""
    try:
        text = log.read_text(errors="replace").splitlines()[-lines:]
    except OSError as error:
        return f"  (cannot read it: {error})"
    return "\n".join(f"  {line[:240]}" for line in text) or "  (empty)"


def folders() -> list[Path]:
    """Where servers of coldprefix are, or have been, in this program's temporary folder and in those of others that listen."""
    listening = {Path(line.split()[-1]).parent for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(f"/{SOCKET}")}
    here = {path for path in Path(tempfile.gettempdir()).glob("coldprefix-*") if path.is_dir()}
    return sorted(here | {path for path in listening if path.name.startswith("coldprefix-")})


class Server:
    """A running server that listens on a Unix socket in a folder only this user can enter.

    Args:
        name: what messages call it.
        command: "{socket}" in its arguments becomes the socket's path, "{folder}" that of its folder; the latter in ``env``, too.
        log: its output goes here; kept.
        grace_s: time between SIGTERM and SIGKILL.
        key_variable: environment variable in which the server takes the key that its clients must show; not on its command line, which
            every user of the machine can read.
        owner: process with which the server ends, however that ends; this one if None.

    Attributes:
        pid: of the supervisor.
        key: random for each server; "" if the server takes none.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        grace_s: float = 10.0,
        key_variable: str | None = None,
        owner: int | None = None,
    ) -> None:
        self.name = name
        self.key = secrets.token_urlsafe(24) if key_variable else ""
        own = {key_variable: self.key} if key_variable else {}
        self.log = log
        self._grace_s = grace_s
        self.folder = Path(tempfile.mkdtemp(prefix="coldprefix-"))  # mode 0700
        self.socket = self.folder / SOCKET
        if len(os.fsencode(self.socket)) > SOCKET_BYTES:
            shutil.rmtree(self.folder)
            raise ColdprefixError(
                f"the socket of {name} would be {self.socket}, longer than the {SOCKET_BYTES} bytes that Linux allows: "
                "set TMPDIR to a folder with a shorter name"
            )
        command = [part.replace("{socket}", str(self.socket)).replace("{folder}", str(self.folder)) for part in command]
        env = {name: value.replace("{folder}", str(self.folder)) for name, value in env.items()} | own
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "wb") as output:
                self.process = subprocess.Popen(
                    supervise.supervised(command, owner, grace_s, str(self.folder)),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=env,
                    start_new_session=True,
                )
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self.pid = self.process.pid

    def check_alive(self, doing: str, wait_s: float = 0.0) -> None:
        """Raises ColdprefixError with the exit code and the end of the log if the server is gone, or is within ``wait_s``."""
        try:
            code = self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return
        who, number = (f"the supervisor of {self.name}", -code) if code < 0 else (self.name, code - 128 if 128 < code < 160 else 0)
        reason = f"was ended by signal {number} ({signal.Signals(number).name})" if number else f"exited with code {code}"
        memory = " (if nobody sent it: the kernel, for want of memory)" if number == signal.SIGKILL else ""
        raise ColdprefixError(f"{who} {reason} while {doing}{memory}. The end of {self.log}:\n{tail(self.log)}")

    def wait_ready(self, is_ready: Callable[[], bool], timeout_s: float) -> float:
        """Poll ``is_ready()`` until it is true; returns the seconds it took.

        Raises:
            ColdprefixError: the server ended, or was not ready in time.
        """
        started = time.monotonic()
        while True:
            self.check_alive("starting")
            if self.socket.exists() and is_ready():
                return time.monotonic() - started
            if time.monotonic() - started > timeout_s:
                raise ColdprefixError(
                    f"{self.name} was not ready after {timeout_s:.0f} s (start_timeout_s). The end of {self.log}:\n{tail(self.log)}"
                )
            time.sleep(POLL_S)

    def process_ids(self) -> list[int]:
        """The supervisor and everything below it."""
        return [self.pid, *supervise.descendants(self.pid)]

    def close(self) -> None:
        """Stop it and everything below it; the socket's folder goes too."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(self._grace_s + 15)
            except subprocess.TimeoutExpired:  # the supervisor itself hangs: take the whole session
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        supervise.end_session(self.pid, self.log)
        shutil.rmtree(self.folder, ignore_errors=True)


class Adopted(Server):
    """A server that another job of the same run has started (lease.py).

    Args:
        pid: of its supervisor.
        key: that its clients must show.
    """

    def __init__(self, name: str, folder: Path, pid: int, key: str, log: Path) -> None:
        self.name = name
        self.folder = folder
        self.socket = folder / SOCKET
        self.key = key
        self.log = log
        self.pid = pid
        self._supervisor = psutil.Process(pid)

    def check_alive(self, doing: str, wait_s: float = 0.0) -> None:
        """Raises ColdprefixError with the end of the log if the server is gone; its exit code is known to its parent only."""
        if self._ends_within(wait_s):
            raise ColdprefixError(f"{self.name} ended while {doing}. The end of {self.log}:\n{tail(self.log)}")

    def _ends_within(self, wait_s: float) -> bool:
        deadline = time.monotonic() + wait_s
        while (alive := self._is_alive()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return not alive

    def _is_alive(self) -> bool:
        """A dead one whose parent has not taken it away, as process 1 of a container may never do, is not."""
        try:
            return self._supervisor.is_running() and self._supervisor.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def close(self) -> None:
        """Stop it and everything below it; its supervisor removes the folder."""
        try:
            self._supervisor.terminate()
        except psutil.NoSuchProcess:
            pass
        if not self._ends_within(30):  # the supervisor itself hangs: take the whole session
            os.killpg(self.pid, signal.SIGKILL)
        supervise.end_session(self.pid, self.log)
        shutil.rmtree(self.folder, ignore_errors=True)
