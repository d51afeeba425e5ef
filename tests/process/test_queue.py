"""A head of a run that was killed, and jobs of it that may live: what its folder's lock may then do."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from coldprefix.errors import ColdprefixError
from coldprefix.process import locks, queue

DEAD = {"name": "some-run", "host": socket.gethostname(), "pid": 1, "born": -1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a lock that Snakemake left."""
    (tmp_path / ".snakemake/locks").mkdir(parents=True)
    (tmp_path / ".snakemake/locks/0.output.lock").write_text("x")
    return tmp_path


def submitted(folder: Path, **changes: object) -> None:
    (folder / ".snakemake/coldprefix.submitted").write_text(json.dumps(DEAD | changes))


def with_squeue(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "bin").mkdir()
    (folder / "bin/squeue").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin/squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"))


def locked(folder: Path) -> bool:
    return (folder / ".snakemake/locks/0.output.lock").exists()


def test_a_run_that_submitted_nothing_is_unlocked_as_ever(folder: Path) -> None:
    locks.hold_folder(folder).close()
    assert not locked(folder)


def test_one_that_a_cluster_runs_removes_no_lock(folder: Path) -> None:
    """It is a job of a head on another machine, whose kernel's lock it may not see."""
    locks.hold_folder(folder, may_unlock=False).close()
    assert locked(folder)


def test_jobs_in_the_queue_are_named_and_keep_the_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted(folder)
    with_squeue(folder, monkeypatch, 'echo "$@" >seen; echo 17; echo 18')
    monkeypatch.chdir(folder)
    with pytest.raises(ColdprefixError, match=r"2 of its jobs are still in SLURM's queue \(17, 18\)\. Wait .* scancel --name=some-run$"):
        locks.hold_folder(folder)
    assert locked(folder) and "--name=some-run" in (folder / "seen").read_text()


def test_when_they_have_ended_the_lock_goes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted(folder)
    with_squeue(folder, monkeypatch, "exit 0")
    locks.hold_folder(folder).close()
    assert not locked(folder) and not (folder / ".snakemake/coldprefix.submitted").exists()


@pytest.mark.parametrize(("name", "script"), [("some-run", "echo no controller >&2; exit 1"), ("some-run", None), ("", "exit 0")])
def test_if_slurm_does_not_say_nothing_is_done(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str | None) -> None:
    submitted(folder, name=name)
    if script:
        with_squeue(folder, monkeypatch, script)
    else:
        monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(ColdprefixError, match=r"SLURM does not say whether its jobs have ended .*coldprefix\.submitted"):
        locks.hold_folder(folder)
    assert locked(folder)


def test_a_head_elsewhere_or_alive_is_left_alone(folder: Path) -> None:
    submitted(folder, host="login9")
    with pytest.raises(ColdprefixError, match="a run was started here on login9, which submitted jobs as some-run"):
        locks.hold_folder(folder)
    queue.note(folder, "mine")
    locks.hold_folder(folder).close()
    assert locked(folder)
    queue.forget(folder)
    locks.hold_folder(folder).close()
    assert not locked(folder)
