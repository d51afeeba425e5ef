"""An engine inside this process: it gets an environment of its own, its output goes to its log, and it is ended when it does not come back."""

from __future__ import annotations

import faulthandler
import math
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from coldprefix.errors import ColdprefixError, Refused
from coldprefix.process.identity import born, is_alive
from coldprefix.process.server import tail

TMP = "coldprefix-process-"  # followed by the process's id and birth
# What engines that could be loaded were seen to raise at a prompt of a model that their code has no place for: the same each time, unlike a
# lack of memory (RuntimeError). While one is loaded, an assertion may be about what is free on this machine just now.
NOT_MADE_FOR_IT = (AssertionError, AttributeError, IndexError, NotImplementedError)


class InProcess:
    """What surrounds an engine in this process, from its start until `close`.

    The environment is replaced, as a server's is, and standard output and error go to ``log`` at the level of the kernel, not over the
    progress bar; `close` gives both back. Where an engine computes, Python can neither raise nor be interrupted: a thread that looks
    at a deadline now and then, so seldom that it disturbs no measurement, ends this process with one message.

    Args:
        what: what messages begin with: the cell and the engine.
        name: what messages call the engine.
        start_timeout_s, timeout_s: longest wait for the engine and for one answer.
        own_tmp: give it a temporary folder of its own, for an engine that leaves files behind.
    """

    def __init__(
        self,
        what: str,
        name: str,
        log: Path,
        environment: Mapping[str, str],
        start_timeout_s: float,
        timeout_s: float,
        own_tmp: bool = False,
    ) -> None:
        self._what, self._name, self.log = what, name, log
        self._start_timeout_s, self._timeout_s = start_timeout_s, timeout_s
        self._deadline = math.inf
        self._passed = ""
        self._period_s = min(max(min(timeout_s, start_timeout_s) / 10, 0.5), 10.0)
        self._saved: tuple[int, ...] = os.dup(1), os.dup(2)
        self._terminal = os.dup(2)
        try:  # first: where this fails, what is said must reach the terminal
            threading.Thread(target=self._watch, daemon=True).start()
        except RuntimeError as error:
            raise MemoryError(str(error)) from None
        self._inherited = dict(os.environ)
        os.environ.clear()
        os.environ.update(environment)
        self._tmp = _own_tmp() if own_tmp else None
        log.parent.mkdir(parents=True, exist_ok=True)
        _flush()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        faulthandler.enable()  # the Python stack: a crash inside a library leaves no other trace

    @contextmanager
    def starting(self, loads: Path) -> Iterator[None]:
        """The engine loads ``loads`` inside.

        Raises:
            ColdprefixError: it cannot; everything has been given back.
        """
        try:
            with self._limit(f"was not ready after {self._start_timeout_s:.0f} s (start_timeout_s)", self._start_timeout_s):
                yield
        except BaseException as error:
            self.close()
            if isinstance(error, (ValueError, RuntimeError, OSError, ImportError, AssertionError)):
                raise ColdprefixError(f"{self._name} cannot load {loads}: {error}\nThe end of {self.log}:\n{tail(self.log)}") from error
            raise

    @contextmanager
    def answering(self, prompt_tokens: int) -> Iterator[None]:
        """The engine answers a prompt inside. Raises ColdprefixError if it fails, Refused if it would the next time, too."""
        try:
            with self._limit(f"gave no complete answer within {self._timeout_s:.0f} s (timeout_s)", self._timeout_s):
                yield
        except NOT_MADE_FOR_IT as error:
            raise Refused(f"{self._name} failed on a prompt of {prompt_tokens} tokens: {error!r}") from error
        except (RuntimeError, ValueError, StopIteration) as error:
            raise ColdprefixError(f"{self._name} failed on a prompt of {prompt_tokens} tokens: {error!r}") from error

    def close(self) -> None:
        """Give this process its own output and environment back; a second call does nothing."""
        if not self._saved:
            return
        _flush()
        for number, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, number)
            os.close(saved)
        self._saved = ()
        faulthandler.disable()
        os.environ.clear()
        os.environ.update(self._inherited)
        if self._tmp:
            tempfile.tempdir = None  # looked up anew
            shutil.rmtree(self._tmp, ignore_errors=True)

    @contextmanager
    def _limit(self, passed: str, timeout_s: float) -> Iterator[None]:
        """End this process, with exit code 1, if what is inside takes longer; ``passed`` is what to say then."""
        self._passed = passed
        self._deadline = time.monotonic() + timeout_s
        try:
            yield
        finally:
            self._deadline = math.inf

    def _watch(self) -> None:
        while time.monotonic() < self._deadline and self._saved:
            time.sleep(self._period_s)
        if self._saved:
            os.write(self._terminal, f"\ncoldprefix: {self._what}: {self._name} {self._passed}. Its log: {self.log}\n\n".encode())
            os._exit(1)
        os.close(self._terminal)


def _own_tmp() -> Path:
    """A temporary folder for this process, named after it; those of processes that were killed are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{TMP}*"):
        pid, _, start = left.name.removeprefix(TMP).partition("-")
        if left.lstat().st_uid == os.getuid() and not _is_alive(pid, start):
            shutil.rmtree(left, ignore_errors=True)
    own = Path(tempfile.gettempdir()) / f"{TMP}{os.getpid()}-{born(os.getpid())}"
    own.mkdir(mode=0o700)
    os.environ["TMPDIR"] = tempfile.tempdir = str(own)
    return own


def _is_alive(pid: str, start: str) -> bool:
    return pid.isdecimal() and start.isdecimal() and is_alive(int(pid), int(start))


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
