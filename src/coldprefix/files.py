"""Files are written whole or not at all: a partial one never has the final name. Standard library only."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coldprefix.errors import NO_SPACE, ColdprefixError, no_space


def sha256_of(data: bytes) -> str:
    """64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """As `sha256_of`, of a file of any size."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def partial_of(path: Path) -> Path:
    """Where a file or folder is until it is whole: a place of this process's own, since several may make the same thing at once."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")


def left_behind(path: Path) -> list[Path]:
    """What killed processes of this machine have left where they made ``path``."""
    mine = f".{path.name}.{socket.gethostname()}."
    found = [p for p in path.parent.glob(f".{path.name}.*.part") if p.name.startswith(mine)]
    return [
        p for p in found if (number := p.name.removeprefix(mine).removesuffix(".part")).isdecimal() and not Path(f"/proc/{number}").exists()
    ]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """The place where to write what gets the name ``path`` when it is on the disk. Its folder is made.

    Raises:
        ColdprefixError: the disk is full; names the file.
    """
    partial = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in left_behind(path):
            left.unlink(missing_ok=True)
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise ColdprefixError(no_space(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file and make its folder. Raises ColdprefixError, naming the file, if the disk is full."""
    with whole(path) as partial:
        partial.write_bytes(data)
        if partial.stat().st_size != len(data):
            raise OSError(errno.ENOSPC, "not written whole")


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """As `write_bytes`; keys sorted, so that equal contents are equal bytes."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_json(path: Path, anew: str = "Delete it and run snakemake again to make it anew.") -> dict[str, Any]:
    """A record that an earlier program wrote. Raises ColdprefixError, which ends with ``anew``, if it is none."""
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise TypeError("it holds no record")
        return found
    except (OSError, ValueError, TypeError) as error:
        raise ColdprefixError(f"cannot read {path}: {error}. {anew}") from None
