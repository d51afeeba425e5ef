"""Our own programs and Snakemake are killed while a run is under way."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import fault_table
import pytest
from fault_run import FOUR, FOUR_CELLS, PATIENCE_S, Run, belonging, cmdline, measured, until

pytestmark = pytest.mark.engine

OURS = "Our own programs, and Snakemake"


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_measuring_job_is_killed(run: Run, how: signal.Signals) -> None:
    run.start()
    run.wait_for_second_cell()
    job = run.program("measure.py")
    assert job is not None
    job.send_signal(how)
    if how == signal.SIGTERM:
        run.fails(OURS, "SIGTERM to the measuring job", r"phase3a/\S+: ended by SIGTERM; nothing of it is kept.*\.log")
    else:
        run.fails(OURS, "SIGKILL to the measuring job", "", snakemakes=r"Error in rule phase3a:.*?log: \S+\.log")


@pytest.mark.parametrize("how", [pytest.param("SIGTERM", marks=pytest.mark.slow), "SIGINT to the group", "SIGKILL"])
def test_snakemake_is_killed(run: Run, how: str) -> None:
    run.start()
    run.wait_for_second_cell()
    assert run.process is not None
    if how == "SIGINT to the group":
        os.killpg(run.process.pid, signal.SIGINT)
        run.fails(OURS, "Ctrl-C", r"phase3a/\S+: interrupted; nothing of it is kept.*\.log")
    else:
        run.process.send_signal(signal.Signals[how])
        # SIGKILL: what our job says then is printed after Snakemake's end. SIGTERM: Snakemake lets the running cell finish.
        run.fails(
            OURS,
            f"{how} to Snakemake",
            r"phase3a/\S+: ended by SIGTERM.*log" if how == "SIGKILL" else "",
            snakemakes="Will exit after[^\n]*",
        )


@pytest.mark.parametrize("forced", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_snakemake_is_killed_when_a_cell_is_whole_and_not_yet_noted(run: Run, forced: bool) -> None:
    """What has its name is whole, so Snakemake is told to take it as it is. Unless it is to be measured again."""
    run.cells = FOUR_CELLS
    run.start(*FOUR)
    run.wait_for_second_cell()
    assert run.process is not None
    run.process.send_signal(signal.SIGSTOP)
    until(lambda: len(run.finished()) == 2, PATIENCE_S, "the second cell")
    run.process.kill()
    assert run.process.wait() != 0
    until(lambda: not belonging(run.folder), 10, "the end of all")
    kept = run.finished()
    began = time.monotonic()
    done = run.again(*FOUR, *(["--forcerun", "phase3a"] if forced else []))
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    run.check_results()
    assert not run.left()
    if forced:
        assert measured(output, "phase3a") == 4 and not set(run.finished().values()) & set(kept.values())
        return
    assert measured(output, "phase3a") == 2 and run.finished().items() >= kept.items(), output[-3000:]
    then = f"says that a lock was removed, measures 2 of 4 cells ({time.monotonic() - began:.0f} s)"
    fault = "SIGKILL to Snakemake after a cell's last byte, before it could note that"
    fault_table.record(OURS, fault, "(nobody is left to say it)", "nothing", then)


def test_a_cell_of_another_configuration_is_refused_although_nobody_noted_it(run: Run) -> None:
    """Snakemake knows no parameters of a cell that it could not note, so it does not see that they have changed."""
    run.start()
    run.wait_for_second_cell()
    assert run.process is not None
    run.process.send_signal(signal.SIGSTOP)
    until(lambda: len(run.finished()) == 2, PATIENCE_S, "the second cell")
    run.process.kill()
    run.process.wait()
    until(lambda: not belonging(run.folder), 10, "the end of all")
    done = run.again("--config", "question_tokens=9")
    output = done.stdout + done.stderr
    assert done.returncode != 0 and measured(output, "phase3a") == 1, "the noted one is measured again"
    said = re.search(
        r"^coldprefix: (phase3a/\S+ was measured with kinds\.0\.lengths\.Q 8, the configuration asks for 9 now.*)$", output, re.M
    )
    assert said, output[-3000:]
    fault_table.record(OURS, "the same, then another configuration", said[1], "nothing", "measures the other cell, then says this")


def test_the_process_of_an_engine_inside_the_job_is_killed(python_run: Run) -> None:
    """The program that measures has a process for each of its engine's, which crashes with it."""
    python_run.start()
    log = python_run.folder / f"results/logs/phase3b/{python_run.cells[1]}.log"
    child = until(lambda: python_run.child() if log.exists() else None, PATIENCE_S, "the engine's process")
    child.kill()
    message = r"phase3b/\S+: the engine's process was ended by signal 9 \(SIGKILL\).*\.log"
    python_run.fails(OURS, "SIGKILL to the process of llama-cpp-python", message)


PTRACE_ATTACH = 16
WALL = 0x40000000  # waitpid for threads, too


def test_an_engine_inside_the_job_hangs(python_run: Run) -> None:
    """One of its computing threads is stopped for ever; the others wait for it. Nothing in the process is told that."""
    python_run.start("--config", "trials=500", "timeout_s=5")  # time enough to find that thread
    job = until(python_run.child, PATIENCE_S, "the first cell")
    log = python_run.folder / cmdline(job)[cmdline(job).index("--log") + 1]
    until(lambda: log.exists() and "sched_reserve: reserve took" in log.read_text(), PATIENCE_S, "the engine")
    seen: Counter[int] = Counter()

    def computing() -> int | None:
        """A thread, not Python's main one, that is found running again and again."""
        for task in Path(f"/proc/{job.pid}/task").iterdir():
            if int(task.name) != job.pid and (task / "stat").read_text().rpartition(")")[2].split()[0] == "R":
                seen[int(task.name)] += 1
        return next((number for number, times in seen.items() if times >= 5), None)

    thread = until(computing, PATIENCE_S, "a computing thread")
    began = time.monotonic()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ptrace(PTRACE_ATTACH, thread, 0, 0) == 0, os.strerror(ctypes.get_errno())

    def bury() -> None:
        """Its own parent cannot see the end of a process before we have seen that of this thread."""
        while os.WIFSTOPPED(os.waitpid(thread, WALL)[1]):
            pass

    threading.Thread(target=bury, daemon=True).start()
    python_run.fails(
        OURS,
        "a thread of llama-cpp-python hangs",
        r"phase3b/\S+: llama-cpp-python gave no complete answer within 5 s \(timeout_s\)\. Its log: \S+\.log",
        began=began,
    )


@pytest.mark.slow
def test_a_converter_does_not_outlive_snakemake(run: Run) -> None:
    """Nor do compilers and installers, which are run in the same way."""
    for file in [*run.folder.glob("models/*.gguf"), *run.folder.glob("models/*.json")]:
        file.unlink()
    run.start()
    until(lambda: run.program("convert_hf_to_gguf.py"), PATIENCE_S, "the converter")
    assert run.process is not None
    run.process.kill()
    run.fails(OURS, "SIGKILL to Snakemake while the model is converted", "in_environment.py: ended by SIGTERM; nothing of it is kept")
