"""Jobs that a Snakemake has submitted to SLURM: they live on when it is killed, and a kernel's lock does not show them on other machines."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

from coldprefix.errors import ColdprefixError
from coldprefix.files import write_json
from coldprefix.process.identity import born, is_alive


def _note_of(folder: Path) -> Path:
    return folder / ".snakemake" / "coldprefix.submitted"


def note(folder: Path, name: str) -> None:
    """Note that this process, the head of a run in a folder, submits jobs under a name."""
    write_json(_note_of(folder), {"name": name, "host": socket.gethostname(), "pid": os.getpid(), "born": born(os.getpid())})


def forget(folder: Path) -> None:
    """The run has ended, and with it its jobs."""
    _note_of(folder).unlink(missing_ok=True)


def may_write(folder: Path) -> bool:
    """May jobs of a run that is not over write into this folder, so that its lock must stay? False where none were submitted, or all have ended.

    Raises:
        ColdprefixError: its head is dead, and its jobs are still queued or running; or SLURM does not say.
    """
    try:
        head = json.loads(_note_of(folder).read_text())
    except (OSError, ValueError):
        return False
    if head["host"] != socket.gethostname():
        raise ColdprefixError(
            f"a run was started here on {head['host']}, which submitted jobs as {head['name']}: go on from there. If it is gone, see that "
            f"squeue --name={head['name']} shows none, and delete {_note_of(folder)}"
        )
    if is_alive(head["pid"], head["born"]):
        return True
    jobs = _jobs(head["name"], folder)
    if jobs:
        raise ColdprefixError(
            f"an earlier run in this folder was killed, and {len(jobs)} of its jobs are still in SLURM's queue ({', '.join(jobs[:5])}"
            f"{', ...' if len(jobs) > 5 else ''}). Wait until they have ended, which keeps what they measure, or end them: "
            f"scancel --name={head['name']}"
        )
    forget(folder)
    return False


def _jobs(name: str, folder: Path) -> list[str]:
    """Ids of the jobs of this name that have not ended."""
    try:
        if not name:
            raise OSError("it was not SLURM that ran them")
        command = ["squeue", "--noheader", "--format=%A", f"--name={name}", "--states=PENDING,RUNNING,SUSPENDED,COMPLETING,CONFIGURING"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ColdprefixError(
            f"an earlier run in this folder was killed, and SLURM does not say whether its jobs have ended ({error}). When they have, delete "
            f"{_note_of(folder)} and run again"
        ) from None
    return done.stdout.split()
