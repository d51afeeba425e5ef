"""A server that jobs share: found by the next one, ended with the workflow, and never used when it might not be idle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import SAME_PATH
from test_server import BODY, FAKE, gone

from coldprefix.engines.client import Client
from coldprefix.errors import ColdprefixError
from coldprefix.process import lease, server
from coldprefix.process.identity import MACHINE_LOCK, this_system
from coldprefix.process.lease import Lease

STARTED: list[server.Server] = []  # by this process, which is the one to wait for them
# Whoever measures on this machine ends the idle servers of all runs of this user, and a test does so, too: each keeps to its own,
# as a container does.
SYSTEM = f"{this_system()} of the tests in process {os.getpid()}"
APART = f"from coldprefix.process import lease; lease.this_system = lambda: {SYSTEM!r}\n"


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "this_system", lambda: SYSTEM)


@pytest.fixture
def workflow() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for Snakemake: servers belong to it."""
    process = subprocess.Popen(["sleep", "120"])
    yield process
    lease.end_all(process.pid)
    while STARTED:
        STARTED.pop().process.wait(10)
    process.kill()
    process.wait()


def start(owner: int | None, log: Path, family: str = "a", mode: str = "fine", number: int = 0) -> Lease:
    """What a job does that needs a server of this kind: it finds one, or starts one."""

    def begin() -> server.Server:
        command = [sys.executable, FAKE, "{socket}", mode]
        STARTED.append(server.Server("fake server", command, server.clean_environment({}), log, 1.0, key_variable="FAKE_KEY", owner=owner))
        return STARTED[-1]

    own = Lease(owner, family, number, begin)
    Client(own.server, 5.0).wait_healthy(10)
    return own


class NoneFoundError(Exception):
    """The next job would start a server of its own."""


def find(owner: int, family: str, number: int = 0) -> server.Server | None:
    """The server that the next job of this kind would get, after what it ends; None if it would start one."""

    def begin() -> server.Server:
        raise NoneFoundError

    try:
        return Lease(owner, family, number, begin).server
    except NoneFoundError:
        return None


def test_the_next_job_finds_it_and_can_talk_to_it(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = start(workflow.pid, tmp_path / "log")
    own.take("one")
    assert not own.adopted and own.used_before == 0
    own.give_back()
    found = start(workflow.pid, tmp_path / "other")
    assert found.adopted and len(STARTED) == 1 and not (tmp_path / "other").exists()
    assert found.server.key == own.server.key != "" and found.server.process_ids() == own.server.process_ids()
    found.take("two")
    assert found.used_before == 1
    assert Client(found.server, 5.0).exchange("/completion", BODY, stream=True).events
    assert oct((found.server.folder / lease.RECORD).stat().st_mode)[-3:] == "600"


def test_a_server_that_is_not_shared_ends_with_its_job(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = start(None, tmp_path / "log")
    pids, folder = own.server.process_ids(), own.server.folder
    own.take("one")
    assert not (folder / lease.RECORD).exists() and find(workflow.pid, "a") is None and not gone(pids)
    own.give_back()
    assert gone(pids) and not folder.exists()


def test_one_that_is_in_use_or_was_not_given_back_is_ended(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = start(workflow.pid, tmp_path / "log")
    own.take("a job that was killed")
    pids = own.server.process_ids()
    assert find(workflow.pid, "a") is None
    STARTED[-1].process.wait(10)
    assert gone(pids) and not own.server.folder.exists()


def test_another_kind_of_server_is_ended(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = start(workflow.pid, tmp_path / "log")
    own.give_back()
    pids = own.server.process_ids()
    assert find(workflow.pid, "b") is None
    STARTED[-1].process.wait(10)
    assert gone(pids)


def test_free_ones_of_its_family_stay_and_are_told_apart(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    first = start(workflow.pid, tmp_path / "log")
    first.give_back()
    second = start(workflow.pid, tmp_path / "log1", number=1)
    assert not second.adopted and not gone(first.server.process_ids())
    second.take("a job that was killed")
    found = find(workflow.pid, "a")
    assert found is not None and found.folder == first.server.folder
    STARTED[-1].process.wait(10)
    assert gone([second.server.pid]), "nobody knows what it is doing"


def test_the_servers_of_another_run_are_left_alone(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = start(workflow.pid, tmp_path / "log")
    own.give_back()
    other = subprocess.Popen(["sleep", "60"])
    try:
        assert find(other.pid, "a") is None
        lease.end_all(other.pid)
        own.server.check_alive("idle")
    finally:
        other.kill()
        other.wait()


def test_only_servers_of_this_machine_s_lock_are_in_the_way(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """A test's cells may have a lock of their own, which stands for a machine of their own."""
    own = start(workflow.pid, tmp_path / "log")
    own.give_back()
    file = own.server.folder / lease.RECORD
    text = file.read_text()
    file.write_text(json.dumps(json.loads(text) | {"machine": "another lock"}))
    assert lease.end_idle(None) == []
    own.server.check_alive("idle")
    file.write_text(text)
    assert lease.end_idle(None) == [f"fake server of the run of process {workflow.pid}"]


def test_it_outlives_the_job_that_started_it_and_ends_with_the_workflow(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    program = (
        f"{SAME_PATH}{APART}"
        "from pathlib import Path; import test_lease\n"
        f"own = test_lease.start({workflow.pid}, Path({str(tmp_path / 'log')!r}), mode='family'); own.give_back()\n"
        "print(*own.server.process_ids(), flush=True)"
    )
    job = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    pids = [int(word) for word in job.stdout.split()]
    assert len(pids) == 3 and all(psutil.pid_exists(pid) for pid in pids)
    found = find(workflow.pid, "a")
    assert found is not None and found.process_ids() == pids
    workflow.kill()  # SIGKILL: nothing can be told to anyone
    workflow.wait()
    deadline = time.monotonic() + 8
    while not gone(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(pids) and not found.folder.exists()
    with pytest.raises(ColdprefixError, match="fake server ended while answering"):
        found.check_alive("answering")


@pytest.mark.parametrize("taken_away", [True, False])
def test_what_a_killed_supervisor_left_is_ended_by_whoever_comes_next(
    workflow: subprocess.Popen[bytes], tmp_path: Path, taken_away: bool
) -> None:
    """The job that used it may have been killed with it, and Snakemake, too. Process 1 of a container need not take the dead away."""
    own = start(workflow.pid, tmp_path / "log", mode="crew")
    own.take("a job that was killed")
    supervisor, *others = own.server.process_ids()
    os.kill(supervisor, signal.SIGKILL)
    if taken_away:
        STARTED[-1].process.wait(10)
    deadline = time.monotonic() + 5
    while not gone([supervisor]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not gone(others)
    assert find(os.getpid(), "another run's") is None
    assert gone(others) and not own.server.folder.exists()


def test_a_session_s_number_may_be_another_s_by_now(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """As of a shell that has ended and whose programs in the background go on: they have nothing to do with the server's log."""
    own = start(workflow.pid, tmp_path / "log", mode="crew")
    shell = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    assert shell.stdout is not None
    background = int(shell.stdout.readline())
    shell.stdout.close()
    shell.wait()
    record = json.loads((own.server.folder / lease.RECORD).read_text())
    (own.server.folder / lease.RECORD).write_text(json.dumps(record | {"supervisor": shell.pid}))
    assert os.getsid(background) == shell.pid
    assert find(workflow.pid, "a") is None
    assert not gone([background])
    os.kill(background, signal.SIGKILL)
    own.close()


@pytest.mark.parametrize("why", ["another system", "others may write", "a link"])
def test_a_server_that_may_not_be_ours_is_left_alone(workflow: subprocess.Popen[bytes], tmp_path: Path, why: str) -> None:
    own = start(workflow.pid, tmp_path / "log")
    own.give_back()
    file = own.server.folder / lease.RECORD
    text = file.read_text()
    elsewhere = tmp_path / "elsewhere"
    if why == "another system":
        file.write_text(json.dumps(json.loads(text) | {"system": "of a container", "born": 1}))
    elif why == "others may write":
        own.server.folder.chmod(0o770)
    else:
        own.server.folder.rename(elsewhere)
        own.server.folder.symlink_to(elsewhere)
    assert find(workflow.pid, "a") is None
    own.server.check_alive("idle")
    if why == "another system":
        file.write_text(text)
    elif why == "others may write":
        own.server.folder.chmod(0o700)
    else:
        own.server.folder.unlink()
        elsewhere.rename(own.server.folder)
    assert find(workflow.pid, "a") is not None


def test_a_server_that_died_before_it_was_given_back_is_no_failure(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = start(workflow.pid, tmp_path / "log")
    own.close()
    own.give_back()
    with pytest.raises(ColdprefixError, match=r"fake server .* while starting"):
        own.take("one")


def test_a_foreign_record_is_not_believed(workflow: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is damaged, or of a server that has died, names nothing."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    for name, text in {"junk": "{", "list": "[]", "old": '{"identity": "a"}'}.items():
        (tmp_path / f"coldprefix-{name}").mkdir()
        (tmp_path / f"coldprefix-{name}" / lease.RECORD).write_text(text)
    # born long before
    record = lease.Record("a", 0, SYSTEM, str(MACHINE_LOCK), workflow.pid, "fake server", workflow.pid, 1, "key", "log", [], True)
    (tmp_path / "coldprefix-dead").mkdir()
    lease._write(tmp_path / "coldprefix-dead", record)
    assert find(workflow.pid, "a") is None
    assert workflow.poll() is None, "the process that now has its number is not ended"
