"""Programs of the workflow and what they start: nothing outlives what it belongs to, and what went wrong is one message."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from conftest import SAME_PATH
from test_server import gone

from coldprefix.process import program as programs
from coldprefix.process import supervise


def python(program: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SAME_PATH + program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload, no-any-return]


FAMILY = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], start_new_session=True); time.sleep(300)"
COMPILES = (
    "from coldprefix.process.program import run_main; from coldprefix.process import supervise\n"
    f"run_main(lambda: supervise.run([sys.executable, '-c', {FAMILY!r}]).returncode)"
)


def family_of(process: subprocess.Popen[str]) -> list[int]:
    """The supervisor, the program and its worker in another session."""
    deadline = time.monotonic() + 10
    while len(found := psutil.Process(process.pid).children(recursive=True)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(found) == 3
    return [child.pid for child in found]


def ended(pids: list[int]) -> bool:
    deadline = time.monotonic() + 8
    while not gone(pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return gone(pids)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_compiler_or_converter_does_not_outlive_the_program_that_runs_it(how: signal.Signals) -> None:
    program = python(COMPILES)
    pids = family_of(program)
    program.send_signal(how)
    _, err = program.communicate(timeout=10)
    assert ended(pids)
    if how != signal.SIGKILL:
        assert program.returncode == 128 + how and err.count("coldprefix: ") == 1 and "Traceback" not in err, err


def test_a_program_that_cannot_be_started_is_said() -> None:
    done = supervise.run(["/no/such/program"])
    assert done.returncode == 127 and "cannot start /no/such/program: No such file" in done.stderr


@pytest.mark.parametrize("shell", [False, True])
def test_a_program_ends_when_the_workflow_has_died(shell: bool) -> None:
    """Also below a shell that lives on, and that would go on to its next command."""
    workflow = subprocess.Popen(["sleep", "60"])
    env = {**os.environ, programs.VARIABLE: str(workflow.pid)}
    program = SAME_PATH + "from coldprefix.process.program import run_main; import time; run_main(lambda: time.sleep(60))"
    command = [sys.executable, "-c", program]
    if shell:
        command = ["bash", "-c", '"$0" -c "$1" && echo next', sys.executable, program]
    job = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(1.0)
    assert job.poll() is None
    workflow.kill()
    workflow.wait()
    out, err = job.communicate(timeout=8)
    assert job.returncode == 143 and "ended by SIGTERM" in err and "next" not in out
    late = subprocess.run(command, env=env, capture_output=True, text=True, timeout=8)
    assert late.returncode == 143 and "the run that started this program has ended" in late.stderr and "next" not in late.stdout


# In C and not to be interrupted, as an engine in this process.
BUSY = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)"


def test_a_program_that_hears_no_signal_ends_all_the_same() -> None:
    workflow = subprocess.Popen(["sleep", "60"])
    program = (
        f"from coldprefix.process import program; program.PATIENCE_S = 1.0; program.end_with_workflow(); print('x', flush=True); {BUSY}"
    )
    job = python(program, env={**os.environ, programs.VARIABLE: str(workflow.pid)})
    assert job.stdout is not None and job.stdout.readline() == "x\n"
    workflow.kill()
    workflow.wait()
    job.communicate(timeout=10)
    assert job.returncode == -signal.SIGKILL or job.returncode == -signal.SIGTERM
