"""Files are written whole or not at all: a partial one never has the final name. Standard library only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from coldprefix.errors import NO_SPACE, ColdprefixError, no_space


def partial_of(path: Path) -> Path:
    """Where a file is until it is whole: always the same place, so that what a killed program leaves there is written over."""
    return path.with_name(f".{path.name}.part")


def read_json(path: Path, anew: str = "Delete it and run snakemake again to make it anew.") -> dict[str, Any]:
    """A record that an earlier program wrote. Raises ColdprefixError, which ends with ``anew``, if it is none."""
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise TypeError("it holds no record")
        return found
    except (OSError, ValueError, TypeError) as error:
        raise ColdprefixError(f"cannot read {path}: {error}. {anew}") from None


def text_of(argument: str) -> str:
    """What a program was given as an argument: a JSON text, or the path of a file that holds one."""
    return argument if argument.lstrip().startswith("{") else Path(argument).read_text()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file and make its folder. Raises ColdprefixError, naming the file, if the disk is full."""
    partial = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise ColdprefixError(no_space(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """As `write_bytes`; keys sorted, so that equal contents are equal bytes."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")
