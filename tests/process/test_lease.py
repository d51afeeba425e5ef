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
from test_server import BODY, FAKE, gone

from coldprefix.engines.client import Client
from coldprefix.errors import ColdprefixError
from coldprefix.process import lease as shared
from coldprefix.process import server

STARTED: list[server.Server] = []  # by this process, which is the one to wait for them


@pytest.fixture
def workflow() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for Snakemake: servers belong to it."""
    process = subprocess.Popen(["sleep", "120"])
    yield process
    shared.end_all(process.pid)
    while STARTED:
        STARTED.pop().process.wait(10)
    process.kill()
    process.wait()


def start(owner: int, log: Path, identity: str = "a", mode: str = "fine") -> server.Server:
    own = server.Server(
        "fake server",
        [sys.executable, FAKE, "{socket}", mode],
        server.clean_environment({}),
        log,
        1.0,
        key_variable="FAKE_KEY",
        owner=owner,
    )
    STARTED.append(own)
    shared.register(own, owner, identity)
    Client(own, 5.0).wait_healthy(10)
    return own


def test_the_next_job_finds_it_and_can_talk_to_it(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = start(workflow.pid, tmp_path / "log")
    assert shared.take(own, "one") == 0
    shared.give_back(own)
    found = shared.find(workflow.pid, "a")
    assert found is not None and found.key == own.key != "" and found.process_ids() == own.process_ids()
    assert shared.take(found, "two") == 1
    assert Client(found, 5.0).exchange("/completion", BODY, stream=True).events
    assert oct((found.folder / shared.RECORD).stat().st_mode)[-3:] == "600"


def test_one_that_is_in_use_or_was_not_given_back_is_ended(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = start(workflow.pid, tmp_path / "log")
    shared.take(own, "a job that was killed")
    pids = own.process_ids()
    assert shared.find(workflow.pid, "a") is None
    own.process.wait(10)
    assert gone(pids) and not own.folder.exists()


def test_another_kind_of_server_is_ended(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = start(workflow.pid, tmp_path / "log")
    shared.give_back(own)
    pids = own.process_ids()
    assert shared.find(workflow.pid, "b") is None
    own.process.wait(10)
    assert gone(pids)


def test_the_servers_of_another_run_are_left_alone(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = start(workflow.pid, tmp_path / "log")
    shared.give_back(own)
    other = subprocess.Popen(["sleep", "60"])
    try:
        assert shared.find(other.pid, "a") is None
        shared.end_all(other.pid)
        own.check_alive("idle")
    finally:
        other.kill()
        other.wait()


def test_it_outlives_the_job_that_started_it_and_ends_with_the_workflow(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    program = (
        f"import sys; sys.path[:0] = [{str(root / 'src')!r}, {str(root / 'tests')!r}]\n"
        "from pathlib import Path; import test_shared; from coldprefix import shared\n"
        f"own = test_shared.start({workflow.pid}, Path({str(tmp_path / 'log')!r}), mode='family'); shared.give_back(own)\n"
        "print(*own.process_ids(), flush=True)"
    )
    job = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    pids = [int(word) for word in job.stdout.split()]
    assert len(pids) == 3 and all(psutil.pid_exists(pid) for pid in pids)
    found = shared.find(workflow.pid, "a")
    assert found is not None and found.process_ids() == pids
    workflow.kill()  # SIGKILL: nothing can be told to anyone
    workflow.wait()
    deadline = time.monotonic() + 8
    while not gone(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(pids) and not found.folder.exists()
    with pytest.raises(ColdprefixError, match="fake server ended while answering"):
        found.check_alive("answering")


def test_what_a_killed_supervisor_left_is_ended_by_whoever_comes_next(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """The job that used it may have been killed with it, and Snakemake, too."""
    own = start(workflow.pid, tmp_path / "log", mode="crew")
    shared.take(own, "a job that was killed")
    supervisor, *others = own.process_ids()
    os.kill(supervisor, signal.SIGKILL)
    own.process.wait(10)
    assert not gone(others)
    assert shared.find(os.getpid(), "another run's") is None
    assert gone(others) and not own.folder.exists()


def test_a_session_s_number_may_be_another_s_by_now(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """As of a shell that has ended and whose programs in the background go on: they have nothing to do with the server's log."""
    own = start(workflow.pid, tmp_path / "log", mode="crew")
    shell = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    assert shell.stdout is not None
    background = int(shell.stdout.readline())
    shell.stdout.close()
    shell.wait()
    record = json.loads((own.folder / shared.RECORD).read_text())
    (own.folder / shared.RECORD).write_text(json.dumps(record | {"supervisor": shell.pid}))
    assert os.getsid(background) == shell.pid
    assert shared.find(workflow.pid, "a") is None
    assert not gone([background])
    os.kill(background, signal.SIGKILL)
    own.close()


@pytest.mark.parametrize("why", ["another system", "others may write", "a link"])
def test_a_server_that_may_not_be_ours_is_left_alone(workflow: subprocess.Popen[bytes], tmp_path: Path, why: str) -> None:
    own = start(workflow.pid, tmp_path / "log")
    shared.give_back(own)
    file = own.folder / shared.RECORD
    text = file.read_text()
    elsewhere = tmp_path / "elsewhere"
    if why == "another system":
        file.write_text(json.dumps(json.loads(text) | {"system": "of a container", "born": 1}))
    elif why == "others may write":
        own.folder.chmod(0o770)
    else:
        own.folder.rename(elsewhere)
        own.folder.symlink_to(elsewhere)
    assert shared.find(workflow.pid, "a") is None
    own.check_alive("idle")
    if why == "another system":
        file.write_text(text)
    elif why == "others may write":
        own.folder.chmod(0o700)
    else:
        own.folder.unlink()
        elsewhere.rename(own.folder)
    assert shared.find(workflow.pid, "a") is not None


def test_a_server_that_died_before_it_was_given_back_is_no_failure(workflow: subprocess.Popen[bytes], tmp_path: Path) -> None:
    own = start(workflow.pid, tmp_path / "log")
    own.close()
    shared.give_back(own)
    with pytest.raises(ColdprefixError, match=r"fake server .* while starting"):
        shared.take(own, "one")


def test_a_foreign_record_is_not_believed(workflow: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is damaged, or of a server that has died, names nothing."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    for name, text in {"junk": "{", "list": "[]", "old": '{"identity": "a"}'}.items():
        (tmp_path / f"coldprefix-{name}").mkdir()
        (tmp_path / f"coldprefix-{name}" / shared.RECORD).write_text(text)
    record = shared.Record("a", shared._system(), workflow.pid, "fake server", workflow.pid, 1, "key", "log", [], True)  # born long before
    (tmp_path / "coldprefix-dead").mkdir()
    shared._write(tmp_path / "coldprefix-dead", record)
    assert shared.find(workflow.pid, "a") is None
    assert workflow.poll() is None, "the process that now has its number is not ended"
