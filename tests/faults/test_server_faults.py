"""The server dies, hangs or lies while a run is under way: what the user sees, what is left, what the next run does."""

from __future__ import annotations

import re
import signal

import pytest
import tampering
from fault_run import PATIENCE_S, SOON, TRIALS, Run, until

pytestmark = pytest.mark.engine

ENGINE = "The server"
# `make test` takes the first of what differs by little only.
KILLS = [signal.SIGKILL, pytest.param(signal.SIGSEGV, marks=pytest.mark.slow)]


def ended_by(how: signal.Signals, doing: str) -> str:
    return rf"phase3a/\S+: llama-server was ended by signal {how} \({how.name}\) while {doing}.*\.log"


@pytest.mark.parametrize("how", KILLS)
def test_the_server_is_killed_before_it_is_ready(run: Run, how: signal.Signals) -> None:
    run.start()
    until(run.engine, PATIENCE_S, "an engine").send_signal(how)
    run.fails(ENGINE, f"{how.name} before it is ready", ended_by(how, "starting"))


@pytest.mark.parametrize("how", KILLS)
@pytest.mark.parametrize(("step", "what"), [pytest.param("warmup", "while warming", marks=pytest.mark.slow), ("stream", "in mid-stream")])
def test_the_server_is_killed_while_it_answers(run: Run, how: signal.Signals, step: str, what: str) -> None:
    run.start()
    proxy = run.tamper(4, step, act=lambda: run.working("llama-server").send_signal(how))
    until(lambda: proxy.acted_at, PATIENCE_S, "the fault")
    run.fails(ENGINE, f"{how.name} {what}", ended_by(how, "answering a request"), began=proxy.acted_at)


@pytest.mark.slow
def test_the_server_hangs_before_it_is_ready(run: Run) -> None:
    run.start(*SOON)
    until(run.engine, PATIENCE_S, "an engine").suspend()
    run.fails(ENGINE, "SIGSTOP before it is ready (`start_timeout_s: 5`)", r"phase3a/\S+: llama-server was not ready after 5 s.*\.log")


@pytest.mark.slow
def test_the_server_hangs(run: Run) -> None:
    run.start(*SOON)
    proxy = run.tamper(4, "stream", act=lambda: run.working("llama-server").suspend())
    until(lambda: proxy.acted_at, PATIENCE_S, "the fault")
    message = r"phase3a/\S+: llama-server gave no complete answer within 5 s \(timeout_s\).*\.log"
    run.fails(ENGINE, "SIGSTOP in mid-stream", message, began=proxy.acted_at)


@pytest.mark.slow
def test_the_server_s_supervisor_is_killed(run: Run) -> None:
    """The process that would end the server; the kernel then ends the server itself."""
    run.start()
    proxy = run.tamper(4, "stream", act=lambda: run.working("llama-server").parents()[0].kill())
    until(lambda: proxy.acted_at, PATIENCE_S, "the fault")
    run.fails(
        ENGINE,
        "SIGKILL to its supervisor",
        r"phase3a/\S+: the supervisor of llama-server was ended by signal 9.*\.log",
        began=proxy.acted_at,
    )


ANSWERS = [
    ("500", "llama-server answered 500: .*out of memory.*log"),
    ("no JSON", "llama-server (sent something that is not JSON|ended a stream in mid-event): .*<html>.*log"),
    ("empty", "llama-server broke off answering a request to /completion.*log"),
    ("truncated", "llama-server (broke off|ended a stream).*log"),
    ("an error in the stream", "llama-server (answered with an error: .*KV cache is full|sent something that is not JSON).*log"),
    ("no counts", f"of {TRIALS} trials are not what they were meant to be.*did not report how many tokens it reused.*log"),
    ("wrong counts", f"of {TRIALS} trials are not what they were meant to be.*reused 7 .*log"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "message"), ANSWERS)
def test_spoilt_answers(run: Run, mode: str, message: str) -> None:
    run.start()
    proxy = run.tamper(1, "stream", spoil=tampering.SPOILT[mode])
    until(lambda: proxy.acted_at, PATIENCE_S, "the fault")
    run.fails("The server's answers (the real server's, spoilt on their way)", mode, rf"phase3a/\S+: .*{message}", began=proxy.acted_at)
    assert len(list(run.folder.rglob("requests.rejected.parquet"))) == mode.endswith("counts"), "rejected rows are kept, named so"


@pytest.mark.parametrize(("mode", "message"), ANSWERS)
def test_spoilt_answers_end_the_cell_s_program(run: Run, mode: str, message: str) -> None:
    """As above without the workflow around it, which is the same for all of them."""
    run.program_alone()
    proxy = run.tamper(1, "stream", spoil=tampering.SPOILT[mode])
    until(lambda: proxy.acted_at, PATIENCE_S, "the fault")
    assert run.process is not None and run.process.wait(PATIENCE_S) == 1
    proxy.close()
    assert len(run.messages()) == 1 and re.search(rf"phase3a/\S+: .*{message}", run.messages()[0], re.S), run.output()
    assert len(list(run.folder.rglob("requests.rejected.parquet"))) == mode.endswith("counts") and len(run.finished()) == 1
    assert not run.left()
