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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from coldprefix.errors import ColdprefixError
from coldprefix.process import supervise
from coldprefix.process.identity import MACHINE_LOCK, born, is_alive, this_system
from coldprefix.process.server import SOCKET, Adopted, Server, folders

RECORD = "shared.json"


@dataclass
class Record:
    """What is known of a shared server.

    Attributes:
        family: sha256 of all that makes one server like another.
        number: 0, 1, ...: which of the family it is; jobs use several, one after the other.
        system: `this_system` of whoever started it: process ids mean nothing elsewhere.
        machine: the lock that stands for the machine which it may be kept on (identity.MACHINE_LOCK).
        owner: process id of the workflow.
        supervisor, born: process id of its supervisor and when that was started (identity.born).
        cells: that it has measured, in order.
        free: False while a job uses it, and after a job that failed or was killed: nobody knows then what it is doing.
    """

    family: str
    number: int
    system: str
    machine: str
    owner: int
    name: str
    supervisor: int
    born: int
    key: str
    log: str
    cells: list[str]
    free: bool

    @property
    def is_alive(self) -> bool:
        return is_alive(self.supervisor, self.born)


class Lease:
    """The use of a server for one job: the owner's free server of this family and number, or one that ``start`` starts.

    Free ones of the same family stay, idle. All other servers of the owner are ended: they would take memory and CPU time. So is what is left of servers, whoever's, whose
    supervisor was killed: nobody else looks after that any more.

    Args:
        owner: process id of the workflow; None: the server is this job's alone, and is ended with the lease.

    Attributes:
        adopted: another job has started the server.
        used_before: number of cells that it has measured before.
    """

    def __init__(self, owner: int | None, family: str, number: int, start: Callable[[], Server]) -> None:
        self._shared = owner is not None
        found = _tidy(owner, family, number) if owner is not None else None
        self.adopted = found is not None
        self.used_before = 0
        self.server: Server = found or start()
        if owner is not None and not found:
            own = self.server
            log = str(own.log.absolute())
            own_record = Record(
                family, number, this_system(), str(MACHINE_LOCK), owner, own.name, own.pid, born(own.pid), own.key, log, [], False
            )
            _write(own.folder, own_record)

    def take(self, cell: str) -> None:
        """Use the server, which is ready, for a cell; nobody else will until `give_back`. Raises ColdprefixError if it has died."""
        if not self._shared:
            return
        try:
            record = read(self.server.folder)
        except FileNotFoundError:
            self.server.check_alive("starting", 5.0)
            raise ColdprefixError(f"{self.server.name} has lost its folder {self.server.folder}; run snakemake again") from None
        self.used_before = len(record.cells)
        record.cells.append(cell)
        record.free = False
        _write(self.server.folder, record)

    def give_back(self) -> None:
        """Leave the server, which is known to be idle, to the next job; if it has died by now, that one starts its own."""
        if not self._shared:
            self.close()
            return
        try:
            record = read(self.server.folder)
        except FileNotFoundError:
            return
        record.free = True
        _write(self.server.folder, record)

    def close(self) -> None:
        """End the server."""
        self.server.close()


def end_all(owner: int) -> None:
    """End the owner's servers."""
    _tidy(owner, "", 0)


def end_idle(owner: int | None) -> list[str]:
    """End the servers of other runs of this user, which are idle: whoever calls this holds the machine's lock, and they do not.

    Their run starts another one when its turn comes. Returns what was ended.
    """
    ended = []
    for folder, record in records():
        if record.is_alive and record.owner != owner and record.machine == str(MACHINE_LOCK):
            ended.append(f"{record.name} of the run of process {record.owner}")
            _adopt(folder, record).close()
    return ended


def strangers() -> list[str]:
    """Servers of other users' runs that listen on this machine: their folders, which we cannot enter."""
    found = []
    for line in Path("/proc/net/unix").read_text().splitlines():
        path = line.split()[-1]
        if path.endswith(f"/{SOCKET}") and Path(path).parent.name.startswith("coldprefix-"):
            folder = Path(path).parent
            try:
                found += [str(folder)] if folder.lstat().st_uid != os.getuid() else []
            except OSError:  # it has just ended, or its file system is not ours
                continue
    return sorted(set(found))


def read(folder: Path) -> Record:
    """The record of the server in ``folder``. Raises OSError, ValueError or TypeError if there is none."""
    return Record(**json.loads((folder / RECORD).read_text()))


def records() -> Iterator[tuple[Path, Record]]:
    """Folders and records of this user's servers here. Other users' folders of a like name are not looked into."""
    for folder in folders():
        try:
            found = folder.lstat()
            if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
                continue
            record = read(folder)
        except (OSError, ValueError, TypeError):
            continue  # it is just ending, or none of ours
        if record.system == this_system():
            yield folder, record


def _write(folder: Path, record: Record) -> None:
    partial = folder / f".{RECORD}"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(record), file)
    partial.replace(folder / RECORD)


def _adopt(folder: Path, record: Record) -> Adopted:
    return Adopted(record.name, folder, record.supervisor, record.key, Path(record.log))


def _tidy(owner: int, family: str, number: int) -> Adopted | None:
    """The owner's free server of this family and number, or None, after ending those of other families and what dead supervisors have left."""
    found = None
    for folder, record in list(records()):
        if not record.is_alive:
            supervise.end_session(record.supervisor, Path(record.log))
            shutil.rmtree(folder, ignore_errors=True)
        elif record.owner != owner:
            continue
        elif not record.free or record.family != family:
            _adopt(folder, record).close()
        elif record.number == number:
            found = _adopt(folder, record)
    return found
