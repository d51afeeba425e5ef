"""Processes and the HTTP client, against real processes that do what servers have been seen to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import SAME_PATH

from coldprefix.engines.client import Client
from coldprefix.engines.wire import count, number
from coldprefix.errors import ColdprefixError
from coldprefix.process import server
from coldprefix.process.identity import born

FAKE = str(Path(__file__).with_name("fake_server.py"))


def start(mode: str, log: Path, grace_s: float = 1.0) -> server.Server:
    return server.Server("fake server", [sys.executable, FAKE, "{socket}", mode], server.clean_environment({}), log, grace_s)


@contextmanager
def client(mode: str, log: Path, timeout_s: float = 5.0) -> Iterator[Client]:
    talk = Client(start(mode, log), timeout_s)
    talk.wait_healthy(10)
    try:
        yield talk
    finally:
        talk.close()


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


BODY = {"prompt": [1, 2, 3], "stream": True}


def test_events_are_cut_right_and_their_times_grow(tmp_path: Path) -> None:
    with client("fine", tmp_path / "log") as talk:
        answer = talk.exchange("/completion", BODY, stream=True)
        whole = talk.exchange("/completion", BODY | {"stream": False}, stream=False)
    times = [time_ms for time_ms, _ in answer.events]
    assert [len(event["tokens"]) for _, event in answer.events] == [1, 1, 1, 0]
    assert times == sorted(times) and times[1] == times[2]  # one write, one time
    assert 20 <= times[0] < times[1] and times[3] <= answer.total_ms
    assert whole.events[0][1]["stop"] is True and whole.events[0][0] == whole.total_ms
    assert answer.connect_ms > 0


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("status500", "fake server answered 500: .*out of memory"),
        ("not-json", "sent something that is not JSON: .*<html>proxy"),
        ("error-event", "answered with an error: .*KV cache is full"),
        ("truncate", "ended a stream in mid-event"),
        ("no-end", "ended a stream in mid-event"),
        ("cut", "fake server broke off answering a request to /completion"),
        ("die-in-stream", r"fake server was ended by signal 9 \(SIGKILL\) while answering a request to /completion"),
        ("hang", r"gave no complete answer within 1 s \(timeout_s\)"),
    ],
)
def test_a_failing_answer_is_one_clear_error(tmp_path: Path, mode: str, message: str) -> None:
    stream = mode != "not-json"
    with client(mode, tmp_path / "log", timeout_s=1.0) as talk, pytest.raises(ColdprefixError, match=f"(?s){message}"):
        talk.exchange("/completion", BODY | {"stream": stream}, stream=stream)


def test_a_server_that_dies_at_the_start_is_reported_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    with (
        pytest.raises(ColdprefixError, match=r"(?s)exited with code 3 while starting.*failed to open GGUF file"),
        client("die-at-start", tmp_path / "log"),
    ):
        pass
    assert time.monotonic() - began < 5


def test_a_server_that_never_gets_ready_is_stopped(tmp_path: Path) -> None:
    running = start("never-ready", tmp_path / "log")
    talk = Client(running, 1.0)
    pids = running.process_ids()
    with pytest.raises(ColdprefixError, match=r"was not ready after 1 s \(start_timeout_s\)"):
        talk.wait_healthy(1.0)
    assert gone(pids)


@pytest.mark.parametrize("mode", ["fine", "deaf", "family"])
def test_nothing_survives_closing(tmp_path: Path, mode: str) -> None:
    running = start(mode, tmp_path / "log")
    running.wait_ready(lambda: True, 10)
    pids = running.process_ids()
    folder = running.folder
    assert len(pids) == (3 if mode == "family" else 2)
    assert oct(folder.stat().st_mode)[-3:] == "700"
    running.close()
    assert gone(pids) and not folder.exists()


def test_workers_do_not_outlive_a_killed_server(tmp_path: Path) -> None:
    """An orphan goes to the supervisor, not to init, and is ended there."""
    running = start("family", tmp_path / "log")
    running.wait_ready(lambda: True, 10)
    pids = running.process_ids()
    os.kill(pids[1], signal.SIGKILL)
    running.process.wait(10)
    assert gone(pids)
    with pytest.raises(ColdprefixError, match=r"was ended by signal 9 \(SIGKILL\) while idle"):
        running.check_alive("idle")
    running.close()


def test_workers_do_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    running = start("crew", tmp_path / "log")
    running.wait_ready(lambda: True, 10)
    supervisor, api_server, worker = running.process_ids()
    os.kill(supervisor, signal.SIGKILL)
    running.process.wait(10)
    with pytest.raises(ColdprefixError, match=r"the supervisor of fake server was ended by signal 9 \(SIGKILL\) while idle"):
        running.check_alive("idle")
    assert not gone([worker]), "this is what is to be ended"
    running.close()
    assert gone([api_server, worker]) and not running.folder.exists()


def test_nobody_s_name_is_in_the_way(tmp_path: Path) -> None:
    """The kernel cuts names after 15 bytes, in the middle of a letter, and shows them as they are."""
    strange = os.fsencode(tmp_path) + "/снв ) S 1".encode()[:15] + b"\xff"
    Path(os.fsdecode(strange)).symlink_to("/bin/sleep")
    other = subprocess.Popen([strange, b"30"])
    try:
        assert born(other.pid) > 0
        running = start("fine", tmp_path / "log")
        running.wait_ready(lambda: True, 10)
        running.close()
    finally:
        other.kill()
        other.wait()


def test_no_folder_is_left_by_a_server_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        start("fine", tmp_path / "file" / "log")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_the_death_of_the_program_that_started_it(tmp_path: Path, how: signal.Signals) -> None:
    """Workers in sessions of their own included: an EngineCore outlives its API server otherwise."""
    program = (
        f"{SAME_PATH}"
        "import time; from pathlib import Path; from test_server import start\n"
        f"running = start('family', Path({str(tmp_path / 'log')!r})); running.wait_ready(lambda: True, 10)\n"
        "print(running.folder, *running.process_ids(), flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    folder, *words = holder.stdout.readline().split()
    pids = [int(word) for word in words]
    assert len(pids) == 3 and Path(folder).exists()
    holder.send_signal(how)
    holder.wait()
    holder.stdout.close()
    deadline = time.monotonic() + 8
    while not gone(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(pids)
    assert not Path(folder).exists(), "its socket is removed, too"


def test_a_server_inherits_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLAMA_ARG_CTX_SIZE", "VLLM_USE_V1", "OMP_NUM_THREADS", "HF_TOKEN"):
        monkeypatch.setenv(name, "1")
    assert set(server.clean_environment({"A": "b"})) <= {*server.INHERITED, "A"}
    running = start("fine", tmp_path / "log")
    running.wait_ready(lambda: True, 10)
    inherited = psutil.Process(running.process_ids()[1]).environ()
    running.close()
    assert "HF_TOKEN" not in inherited and "PATH" in inherited


@pytest.mark.parametrize(
    ("value", "as_count", "as_number"),
    [({"a": {"b": 3}}, 3, 3.0), ({"a": {"b": 1.5}}, None, 1.5), ({"a": {"b": -1}}, None, -1.0), ({"a": {"b": True}}, None, None)]
    + [({"a": {"b": "3"}}, None, None), ({"a": None}, None, None), ({}, None, None), ({"a": {"b": float("nan")}}, None, None)],
)
def test_what_is_not_reported_is_none(value: object, as_count: int | None, as_number: float | None) -> None:
    assert count(value, "a", "b") == as_count
    assert number(value, "a", "b") == as_number
