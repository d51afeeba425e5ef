"""What was read of a big file once, kept in the cache folder for as long as the file is the same: nobody wants 8 GB read at each `snakemake -n`.

A file is the same if its path, size, time of change (ns) and inode are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of, sha256_of_file, write_json
from coldprefix.setup import building
from coldprefix.setup.building import say

BIG = 2**30  # bytes; reading that many takes seconds
# A file may change twice within one tick of the file system's clock. What has just changed is read again each time.
SETTLED_S = 2.0

_of_this_process: dict[tuple[object, ...], Any] = {}


def remembered(path: Path, what: str, read: Callable[[Path], Any]) -> Any:
    """``read(path)``, which must be JSON, or what it was when the same file was read before.

    Args:
        what: tells several readings of a file apart.

    Raises:
        ColdprefixError: there is no such file; and what ``read`` raises.
    """
    try:
        seen = path.stat()
    except OSError as error:
        raise ColdprefixError(f"cannot read {path}: {error.strerror}") from None
    state = {"path": str(path.absolute()), "bytes": seen.st_size, "mtime_ns": seen.st_mtime_ns, "inode": seen.st_ino}
    key = (what, *state.values())
    if key in _of_this_process:
        return _of_this_process[key]
    kept = building.CACHE / "files" / f"{sha256_of(str(path.absolute()).encode())[:32]}-{what}.json"
    value = _kept(kept, state)
    if value is None:
        value = read(path)
        if abs(time.time() - seen.st_mtime) < SETTLED_S:
            return value
        write_json(kept, {**state, "value": value})
    _of_this_process[key] = value
    return value


def _kept(kept: Path, state: dict[str, object]) -> Any:
    try:
        found = json.loads(kept.read_text())
        return found["value"] if {key: found[key] for key in state} == state else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sha256_once(path: Path) -> str:
    """As `sha256_of_file`. Raises ColdprefixError: see `remembered`."""
    return str(remembered(path, "sha256", _hash))


def _hash(path: Path) -> str:
    size = path.stat().st_size
    if size >= BIG:
        say(f"{path}: reading its {size / 2**30:.1f} GiB for their sha256, once")
    return sha256_of_file(path)
