"""Makes things exist once, cached by content outside the checkout: their folders, locks, logs and progress.

Standard library only: this module runs under the system's Python before any environment exists. A folder counts as finished only when
its ``complete.json`` exists, which is written last; an interrupted build is started anew.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from coldprefix.errors import ColdprefixError
from coldprefix.files import read_json, write_json
from coldprefix.process import supervise

ROOT = Path(__file__).resolve().parents[3]


def _cache() -> Path:
    if "COLDPREFIX_CACHE" in os.environ:
        return Path(os.environ["COLDPREFIX_CACHE"]).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "coldprefix"


# Where environments and builds live: $COLDPREFIX_CACHE, else $XDG_CACHE_HOME/coldprefix, else ~/.cache/coldprefix. Looked up once:
# an engine in this process has its environment replaced.
CACHE = _cache()


def say(message: str) -> None:
    """Progress for the person who waits."""
    print(f"coldprefix: {message}", file=sys.stderr, flush=True)


def check_prerequisites(need_compiler: bool = True, path: str | None = None) -> None:
    """Stop with the command that installs what is missing: Python with venv, make, a C++ compiler.

    Raises:
        ColdprefixError: names everything that is missing at once.
    """
    missing = []
    if sys.version_info < (3, 9):
        missing.append(f"Python 3.9 or newer (this is {platform.python_version()}): apt-get install python3")
    try:
        import ensurepip  # noqa: F401  (Debian leaves it out of python3)
        import venv  # noqa: F401
    except ImportError:
        missing.append("Python's venv module: apt-get install python3-venv")
    if not shutil.which("make", path=path):
        missing.append("make: apt-get install make")
    if need_compiler and not any(shutil.which(c, path=path) for c in (os.environ.get("CXX") or "c++", "g++", "clang++")):
        missing.append("a C++ compiler, which builds llama.cpp: apt-get install g++   (Fedora: dnf install gcc-c++)")
    if missing:
        raise ColdprefixError("this machine lacks\n  - " + "\n  - ".join(missing) + "\nInstall it and run the same command again.")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock, so that two runs do not build the same thing at once; the second waits and says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that is building {path.stem.removeprefix('.')}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def without_tokens() -> dict[str, str]:
    """The environment of this process for programs that are not ours; the Hub's token is for the download only."""
    return {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}


def run(command: Sequence[str | Path], log: Path, what: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a command with its output appended to ``log``; a ninja-style [n/m] counter is passed on as progress.

    Raises:
        ColdprefixError: the command is missing or failed; quotes the end of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    reported = 0
    tail: list[str] = []
    with open(log, "a") as out:
        out.write(f"$ {' '.join(map(str, command))}\n")
        with supervise.started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env or without_tokens(), cwd=cwd) as process:
            assert process.stdout is not None
            for line in process.stdout:
                out.write(line)
                tail = [*tail[-14:], line]
                counter = re.match(r"\[(\d+)/(\d+)\]", line)
                if counter:
                    percent = 100 * int(counter[1]) // int(counter[2])
                    if percent >= reported + 10:
                        reported = percent - percent % 10
                        say(f"{what}: {reported} % ({counter[1]} of {counter[2]}) after {time.monotonic() - started:.0f} s")
        code = process.returncode
    if code != 0:
        raise ColdprefixError(f"{what} failed (exit code {code}). The end of {log}:\n{''.join(tail)}")


def finished(folder: Path) -> bool:
    return (folder / "complete.json").is_file()


def finish(folder: Path, started: float, record: Mapping[str, object]) -> None:
    """Mark a folder as finished, last of all."""
    seconds = round(time.monotonic() - started, 1)
    write_json(folder / "complete.json", {**record, "build_seconds": seconds})
    say(f"{folder.name}: done in {seconds:.0f} s")


def build_record(folder: Path) -> dict[str, object]:
    """What ``complete.json`` of a finished environment or build says, build_seconds included."""
    return read_json(folder / "complete.json", f"Delete {folder} and run again to make it anew.")
