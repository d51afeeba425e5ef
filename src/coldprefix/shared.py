"""A server that the cells of one run use one after the other: the first starts it, each finds it empty, the run's end ends it.

Starting `vllm serve` takes some 20 s, more than many a cell measures. The server belongs to the process that runs the whole
workflow (the owner; see supervise.py) and not to the job that started it. What a job must know of it stands in `shared.json`
beside its socket, in a folder that only this user can enter.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from coldprefix import supervise
from coldprefix.clock import born
from coldprefix.errors import ColdprefixError
from coldprefix.server import Adopted, Server

RECORD = "shared.json"


@dataclass
class Record:
    """What is known of a shared server.

    Attributes:
        identity: sha256 of all that makes one server like another.
        system: `_system` of whoever started it: process ids mean nothing elsewhere.
        owner: process id of the workflow.
        supervisor, born: process id of its supervisor and when that was started (clock.born).
        cells: that it has measured, in order.
        free: False while a job uses it, and after a job that failed or was killed: nobody knows then what it is doing.
    """

    identity: str
    system: str
    owner: int
    name: str
    supervisor: int
    born: int
    key: str
    log: str
    cells: list[str]
    free: bool


def _write(folder: Path, record: Record) -> None:
    partial = folder / f".{RECORD}"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(record), file)
    partial.replace(folder / RECORD)


def _system() -> str:
    """The start of this machine and the space of process ids: another one's, as of a container that shares /tmp, are not ours."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"


def _records() -> Iterator[tuple[Path, Record]]:
    """Folders and records of this user's servers here. Other users' folders of a like name are not looked into."""
    for path in Path(tempfile.gettempdir()).glob(f"coldprefix-*/{RECORD}"):
        try:
            folder = path.parent.lstat()
            if folder.st_uid != os.getuid() or not stat.S_ISDIR(folder.st_mode) or folder.st_mode & 0o077:
                continue
            record = Record(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue  # it is just ending, or none of ours
        if record.system == _system():
            yield path.parent, record


def _is_alive(record: Record) -> bool:
    try:
        return born(record.supervisor) == record.born
    except OSError:
        return False


def _adopt(folder: Path, record: Record) -> Adopted:
    return Adopted(record.name, folder, record.supervisor, record.key, Path(record.log))


def find(owner: int, identity: str) -> Adopted | None:
    """The owner's free server with this identity, or None. All its other servers are ended: they would take memory and CPU time.

    So is what is left of servers, whoever's, whose supervisor was killed: nobody else looks after that any more.
    """
    found = None
    for folder, record in list(_records()):
        if not _is_alive(record):
            supervise.end_session(record.supervisor, Path(record.log))
            shutil.rmtree(folder, ignore_errors=True)
        elif record.owner != owner:
            continue
        elif found is None and record.free and record.identity == identity:
            found = _adopt(folder, record)
        else:
            _adopt(folder, record).close()
    return found


def end_all(owner: int) -> None:
    """End the owner's servers."""
    find(owner, "")


def register(server: Server, owner: int, identity: str) -> None:
    """Make a server that has just been started known, in use."""
    log = str(server.log.absolute())
    _write(server.folder, Record(identity, _system(), owner, server.name, server.pid, born(server.pid), server.key, log, [], False))


def take(server: Server, cell: str) -> int:
    """Use a server for a cell; nobody else will until `give_back`. Returns the number of cells it has measured before.

    Raises:
        ColdprefixError: it has died.
    """
    try:
        record = Record(**json.loads((server.folder / RECORD).read_text()))
    except FileNotFoundError:
        server.check_alive("starting", 5.0)
        raise ColdprefixError(f"{server.name} has lost its folder {server.folder}; run snakemake again") from None
    before = len(record.cells)
    record.cells.append(cell)
    record.free = False
    _write(server.folder, record)
    return before


def give_back(server: Server) -> None:
    """Leave a server that is known to be idle to the next cell; if it has died by now, the next one starts its own."""
    try:
        record = Record(**json.loads((server.folder / RECORD).read_text()))
    except FileNotFoundError:
        return
    record.free = True
    _write(server.folder, record)
