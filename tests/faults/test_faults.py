"""What goes wrong while a run is under way, done to real processes: what the user sees, what is left, what the next run does.

`make faults` runs all of it and writes docs/faults.md; `make test` leaves out what is marked slow.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import fault_table
import polars as pl
import psutil
import pytest
import tampering
from conftest import ROOT
from tampering import Proxy, request_number

from coldprefix.data import tables
from coldprefix.job import Job
from coldprefix.process import locks as exclusive

pytestmark = pytest.mark.engine

TRIALS = 10
CONFIG = f"""
model: gpt2-tiny
accelerator: cpu
experiments: [main]
phases: [phase3a]
configurations: [A64_B64, A32_B96]
question_tokens: 8
trials: {TRIALS}
burn_in: 0
settle_ms: 5
stream_tokens: 30
timeout_s: 5
start_timeout_s: 5
calibration_samples: 2
peer_rounds: 3
max_rejected: 0.5
"""
CELLS = [f"{c}/{s}" for c in ("A64_B64", "A32_B96") for s in ("hit", "miss")]
TARGET = "results/summary.txt"
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
T = TypeVar("T")
ENDS_WITHIN_S = 20.0  # of a fault, for a job that waits at most timeout_s for an answer, and its server's last 5 s


def command(folder: Path, *arguments: str) -> list[str]:
    place = ["-s", str(ROOT / "Snakefile"), "--directory", str(folder), "--configfile", f"{folder}/my.yaml"]
    return [SNAKEMAKE, *place, "--nocolor", *arguments]


def name_of(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def cmdline(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def belonging(folder: Path) -> list[psutil.Process]:
    """Living processes of a run: those that name its folder or work in it, and all below them."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["cmdline", "status", "cwd"]):
        own = process.info["cwd"] == str(folder) or any(str(folder) in part for part in process.info["cmdline"] or [])
        if own and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found[process.pid] = process
            try:
                found |= {child.pid: child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE}
            except psutil.Error:
                pass
    return list(found.values())


def until(condition: Callable[[], T | None], timeout_s: float, what: str) -> T:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.002)
    raise AssertionError(f"waited {timeout_s} s for {what}")


def traces() -> set[str]:
    """What a server or a job may leave on this machine outside its folder."""
    folders = {str(p) for p in Path(tempfile.gettempdir()).glob("coldprefix-*") if p.is_dir()}
    memory = {str(p) for p in Path("/dev/shm").iterdir()}
    listening = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "/coldprefix-" in line}
    return folders | memory | listening


@dataclass
class Run:
    """A folder with a run in it."""

    folder: Path
    phase: str = "phase3a"
    target: str = TARGET
    process: subprocess.Popen[bytes] | None = None
    before: set[str] = field(default_factory=traces)
    proxies: list[Proxy] = field(default_factory=list)

    def start(self, *arguments: str, prefix: list[str] | None = None, **variables: str) -> None:
        with open(self.folder / "output.txt", "wb") as output:
            self.process = subprocess.Popen(
                [*(prefix or []), *command(self.folder, self.target, *arguments)],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
                env={**os.environ, **variables},
            )

    # --- who runs ---

    def engine(self) -> psutil.Process | None:
        return next((p for p in belonging(self.folder) if name_of(p) == "llama-server"), None)

    def program(self, name: str) -> psutil.Process | None:
        return next((p for p in belonging(self.folder) if any(part.endswith(name) for part in cmdline(p)[:3])), None)

    def working(self, what: str) -> psutil.Process:
        """The engine, or "EngineCore" of vLLM, which must be there."""
        found = [p for p in belonging(self.folder) if name_of(p) == what or f"VLLM::{what}" in " ".join(cmdline(p))]
        assert found, [cmdline(p) for p in belonging(self.folder)]
        return found[0]

    def tamper(
        self, trial: int, step: str, spoil: Callable[[bytes], bytes] | None = None, act: Callable[[], object] | None = None, cell: int = 1
    ) -> Proxy:
        """Put a proxy before the server of the cell of this number, to do something at this step of this trial and later.

        A vLLM server is shared by all cells, so their requests are counted on.
        """
        known = set(tampering.sockets())
        for _ in range(1 if self.phase == "phase1" else cell + 1):
            path = until(lambda: next(iter(tampering.sockets() - known), None), 120, "a server's socket")
            known.add(path)
        begin = request_number(trial, step) + (4 * TRIALS * cell if self.phase == "phase1" else 0)
        proxy = Proxy(path, begin, spoil, act)
        self.proxies.append(proxy)
        return proxy

    # --- what is there ---

    def cell(self, cell: str) -> Path:
        return self.folder / "results/raw" / self.phase / cell

    def finished(self) -> dict[str, str]:
        """Cells that are there, and the hash of their rows and record."""
        files = {c: (self.cell(c) / "requests.parquet", self.cell(c) / "provenance.json") for c in CELLS}
        return {c: hashlib.sha256(a.read_bytes() + b.read_bytes()).hexdigest() for c, (a, b) in files.items() if b.exists()}

    def output(self) -> str:
        return (self.folder / "output.txt").read_text(errors="replace").replace("\r", "\n")

    def messages(self) -> list[str]:
        """What coldprefix said, without its progress."""
        found = re.findall(r"^coldprefix: (.*?)(?=\n\n|\Z)", self.output(), re.M | re.S)
        return [m for m in found if "waits for" not in m and "has been removed" not in m and not m.startswith("model ")]

    def wait_for_second_cell(self) -> psutil.Process:
        """The engine of the second cell, well inside its trials."""
        until(lambda: len(self.finished()) >= 1, 60, "the first cell")
        first = len(self.finished())
        found = until(lambda: self.engine() if len(self.finished()) == first else None, 60, "the second cell's engine")
        until(lambda: found.cpu_times().user + found.cpu_times().system > 0.25, 60, "the second cell's trials")
        return found

    # --- and what must be so ---

    def fails(
        self, section: str, fault: str, message: str, within_s: float = ENDS_WITHIN_S, began: float | None = None, snakemakes: str = ""
    ) -> None:
        """The run ends soon, with an exit code, one message and nothing left; the next run does the rest and no more.

        Args:
            message: pattern of our message; "" where nobody of ours is left to say anything.
            snakemakes: pattern of a line of Snakemake's, which then is shown instead.
        """
        began = began if began is not None else time.monotonic()
        assert self.process is not None
        code = self.process.wait(within_s + 30)
        until(lambda: not belonging(self.folder), within_s, f"the end of {[cmdline(p) for p in belonging(self.folder)]}")
        seconds = time.monotonic() - began
        for proxy in self.proxies:
            proxy.close()
            assert proxy.error is None, f"the fault was not done: {proxy.error!r}"
        assert code != 0, self.output()[-3000:]
        assert "Traceback" not in self.output(), self.output()[-5000:]
        shown = ""
        if message:
            said = [m for m in self.messages() if re.search(message, m, re.S)]
            assert len(said) == 1, (self.messages(), self.output()[-3000:])
            assert len(self.messages()) == 1, self.messages()
            shown = said[0]
        elif snakemakes:
            found = re.search(snakemakes, self.output(), re.S)
            assert found, self.output()[-3000:]
            shown = f"(Snakemake) {found[0]}"
        assert seconds <= within_s, f"{fault}: {seconds:.1f} s, {within_s} s allowed"
        left = self.left()
        assert not left, left
        self.repairs(section, fault, shown, seconds, within_s)

    def repairs(self, section: str, fault: str, shown: str, seconds: float, within_s: float) -> None:
        """The next run measures exactly what is missing, and finished cells keep their bytes."""
        kept = self.finished()
        began = time.monotonic()
        done = subprocess.run(command(self.folder, self.target), capture_output=True, text=True, cwd=self.folder, timeout=300)
        output = done.stdout + done.stderr
        assert done.returncode == 0, output[-3000:]
        again = len(re.findall(rf"^(?:local)?rule {self.phase}:", output, re.M))
        assert self.finished().items() >= kept.items(), "finished cells keep their bytes"
        assert len(self.finished()) == len(CELLS) and again == len(CELLS) - len(kept)
        self.check_results()
        assert not self.left()
        removed = "says that a lock was removed, " if "has been removed" in output else ""
        then = f"{removed}measures {again} of {len(CELLS)} cells ({time.monotonic() - began:.0f} s)"
        fault_table.record(section, fault, shown.replace(str(self.folder), "…"), "nothing", then, seconds, within_s)

    def left(self) -> list[str]:
        """Partial files, folders and sockets of servers, shared memory, processes, locks."""
        files = [str(p) for p in self.folder.rglob("*") if p.name.endswith(".part") or p.name == ".parts" or p.name.endswith(".aside")]
        # A shared server ends when Snakemake has ended, and Python's tracker of shared memory after that.
        deadline = time.monotonic() + 10
        while ((new := traces() - self.before) or belonging(self.folder)) and time.monotonic() < deadline:
            time.sleep(0.05)
        locks = []
        with open(exclusive.MACHINE, "r+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locks = [str(exclusive.MACHINE)]
        return files + sorted(new) + locks + [str(p) for p in belonging(self.folder)]

    def check_results(self) -> None:
        for cell in CELLS:
            frame = tables.read_requests(self.cell(cell) / "requests.parquet")
            assert frame.height == 4 * TRIALS
            meant = frame.filter(pl.col("rejection").is_null() & pl.col("intended_cached_tokens").is_not_null())
            assert meant.height and (meant["cached_tokens"] == meant["intended_cached_tokens"]).all()


def set_up(folder: Path, config: str, phase: str) -> Path:
    """A folder in which everything is set up and nothing measured."""
    (folder / "my.yaml").write_text(config.replace("phase3a", phase))
    engine = "vllm-cpu" if phase in ("phase1", "phase2") else "llamacpp"
    files = ["results/preflight/agreed.json", f"results/setup/environments/{engine}.json", "results/setup/models/gpt2-tiny.json"]
    files += ["results/setup/gguf/gpt2-tiny.json"] if engine == "llamacpp" else []
    done = subprocess.run(command(folder, *files), capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return folder


def copied(template: Path, folder: Path, phase: str) -> Iterator[Run]:
    shutil.copytree(template, folder)
    own = Run(folder, phase)
    yield own
    for process in belonging(folder):  # of a test that failed
        process.kill()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return set_up(tmp_path_factory.mktemp("template"), CONFIG, "phase3a")


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Iterator[Run]:
    yield from copied(template, tmp_path / "run", "phase3a")


@pytest.fixture(scope="module")
def python_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return set_up(tmp_path_factory.mktemp("python"), CONFIG, "phase3b")


@pytest.fixture
def python_run(python_template: Path, tmp_path: Path) -> Iterator[Run]:
    yield from copied(python_template, tmp_path / "run", "phase3b")


# --- the engine ------------------------------------------------------------------------------------------------------------

ENGINE = "The server"
# `make test` takes the first of what differs by little only: its faults are to last less than ten minutes.
KILLS = [signal.SIGKILL, pytest.param(signal.SIGSEGV, marks=pytest.mark.slow)]


def ended_by(how: signal.Signals, doing: str) -> str:
    return rf"phase3a/\S+: llama-server was ended by signal {how} \({how.name}\) while {doing}.*\.log"


@pytest.mark.parametrize("how", KILLS)
def test_the_server_is_killed_before_it_is_ready(run: Run, how: signal.Signals) -> None:
    run.start()
    until(run.engine, 60, "an engine").send_signal(how)
    run.fails(ENGINE, f"{how.name} before it is ready", ended_by(how, "starting"))


@pytest.mark.parametrize("how", KILLS)
@pytest.mark.parametrize(("step", "what"), [("warmup", "while warming"), ("stream", "in mid-stream")])
def test_the_server_is_killed_while_it_answers(run: Run, how: signal.Signals, step: str, what: str) -> None:
    run.start()
    proxy = run.tamper(4, step, act=lambda: run.working("llama-server").send_signal(how))
    until(lambda: proxy.acted_at, 60, "the fault")
    run.fails(ENGINE, f"{how.name} {what}", ended_by(how, "answering a request"), began=proxy.acted_at)


def test_the_server_hangs_before_it_is_ready(run: Run) -> None:
    run.start()
    until(run.engine, 60, "an engine").suspend()
    run.fails(ENGINE, "SIGSTOP before it is ready (`start_timeout_s: 5`)", r"phase3a/\S+: llama-server was not ready after 5 s.*\.log")


def test_the_server_hangs(run: Run) -> None:
    run.start()
    proxy = run.tamper(4, "stream", act=lambda: run.working("llama-server").suspend())
    until(lambda: proxy.acted_at, 60, "the fault")
    message = r"phase3a/\S+: llama-server gave no complete answer within 5 s \(timeout_s\).*\.log"
    run.fails(ENGINE, "SIGSTOP in mid-stream", message, began=proxy.acted_at)


def test_the_server_s_supervisor_is_killed(run: Run) -> None:
    """The process that would end the server; the kernel then ends the server itself."""
    run.start()
    proxy = run.tamper(4, "stream", act=lambda: run.working("llama-server").parents()[0].kill())
    until(lambda: proxy.acted_at, 60, "the fault")
    run.fails(
        ENGINE,
        "SIGKILL to its supervisor",
        r"phase3a/\S+: the supervisor of llama-server was ended by signal 9.*\.log",
        began=proxy.acted_at,
    )


ANSWERS = [
    ("500", "llama-server answered 500: .*out of memory.*log"),
    ("no JSON", "llama-server (sent something that is not JSON|ended a stream in mid-event): .*<html>.*log"),
    pytest.param("empty", "llama-server broke off answering a request to /completion.*log", marks=pytest.mark.slow),
    ("truncated", "llama-server (broke off|ended a stream).*log"),
    ("an error in the stream", "llama-server (answered with an error: .*KV cache is full|sent something that is not JSON).*log"),
    ("no counts", "of 10 trials are not what they were meant to be.*did not report how many tokens it reused.*log"),
    ("wrong counts", "of 10 trials are not what they were meant to be.*reused 7 .*log"),
]


@pytest.mark.parametrize(("mode", "message"), ANSWERS)
def test_spoilt_answers(run: Run, mode: str, message: str) -> None:
    run.start()
    proxy = run.tamper(1, "stream", spoil=tampering.SPOILT[mode])
    until(lambda: proxy.acted_at, 60, "the fault")
    run.fails("The server's answers (the real server's, spoilt on their way)", mode, rf"phase3a/\S+: .*{message}", began=proxy.acted_at)
    assert len(list(run.folder.rglob("requests.rejected.parquet"))) == mode.endswith("counts"), "rejected rows are kept, named so"


# --- our own programs -------------------------------------------------------------------------------------------------------

OURS = "Our own programs, and Snakemake"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
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


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT to the group", "SIGKILL"])
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
    """Snakemake takes such a cell for incomplete, deletes it and runs its job again; what was measured is kept all the same.

    Unless it is to be measured again.
    """
    run.start()
    run.wait_for_second_cell()
    assert run.process is not None
    run.process.send_signal(signal.SIGSTOP)
    until(lambda: len(run.finished()) == 2, 60, "the second cell")
    run.process.kill()
    assert run.process.wait() != 0
    until(lambda: not belonging(run.folder), 10, "the end of all")
    kept = run.finished()
    began = time.monotonic()
    again = command(run.folder, TARGET, *(["--forcerun", "phase3a"] if forced else []))
    done = subprocess.run(again, capture_output=True, text=True, cwd=run.folder, timeout=300)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-3000:]
    said = re.findall(r"^coldprefix: (phase3a/\S+ had been measured to its end when its run was killed; that is kept)$", output, re.M)
    jobs = len(re.findall(r"^(?:local)?rule phase3a:", output, re.M))
    run.check_results()
    assert not run.left()
    if forced:
        assert not said and jobs == 4 and not set(run.finished().values()) & set(kept.values())
        return
    assert len(said) == 1 and run.finished().items() >= kept.items(), output[-3000:]
    assert jobs == 3, "two to be measured, one to be put back"
    then = f"says that a lock was removed and that the second cell is kept, measures 2 of 4 cells ({time.monotonic() - began:.0f} s)"
    fault = "SIGKILL to Snakemake after a cell's last byte, before it could note that"
    fault_table.record(OURS, fault, "(nobody is left to say it)", "nothing", then)


PTRACE_ATTACH = 16
WALL = 0x40000000  # waitpid for threads, too


def test_an_engine_inside_the_job_hangs(python_run: Run) -> None:
    """One of its computing threads is stopped for ever; the others wait for it. Nothing in the process is told that."""
    python_run.start("--config", "trials=500")  # time enough to find that thread
    job = until(lambda: python_run.program("measure.py"), 60, "the first cell")
    log = python_run.folder / cmdline(job)[cmdline(job).index("--log") + 1]
    until(lambda: log.exists() and "sched_reserve: reserve took" in log.read_text(), 60, "the engine")
    seen: Counter[int] = Counter()

    def computing() -> int | None:
        """A thread, not Python's main one, that is found running again and again."""
        for task in Path(f"/proc/{job.pid}/task").iterdir():
            if int(task.name) != job.pid and (task / "stat").read_text().rpartition(")")[2].split()[0] == "R":
                seen[int(task.name)] += 1
        return next((number for number, times in seen.items() if times >= 5), None)

    thread = until(computing, 60, "a computing thread")
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


def test_a_converter_does_not_outlive_snakemake(run: Run) -> None:
    """Nor do compilers and installers, which are run in the same way."""
    for file in [*run.folder.glob("models/*.gguf"), *run.folder.glob("models/*.json")]:
        file.unlink()
    run.start()
    until(lambda: run.program("convert_hf_to_gguf.py"), 60, "the converter")
    assert run.process is not None
    run.process.kill()
    run.fails(OURS, "SIGKILL to Snakemake while the model is converted", "restore.py: ended by SIGTERM; nothing of it is kept")


# --- disk and memory ----------------------------------------------------------------------------------------------------------

MACHINE = "Disk, memory, clock"


def small_disk(folder: Path, options: str = "size=4k", keep: bool = False) -> list[str]:
    """Prefix of a command that sees a small disk at ``folder``; in a name space of its own, so that no one else does."""
    folder.mkdir(parents=True, exist_ok=True)
    # Where a job fails, Snakemake removes a folder that it leaves empty, which a mounted one resists.
    script = f'mount -t tmpfs -o {options} tmpfs "$0" && {"touch $0/.keep && " if keep else ""}exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "bash", "-c", script, str(folder)]


@pytest.fixture(scope="module")
def can_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    prefix = small_disk(tmp_path_factory.mktemp("disk"))
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets us mount nothing, not even in a user name space")


FULL = r"there is no space left on the disk for \S*"


@pytest.mark.usefixtures("can_mount")
@pytest.mark.parametrize(
    ("place", "target", "message"),
    [
        ("results/raw", TARGET, rf"phase3a/\S+: {FULL}requests\.parquet; make room and run snakemake again"),
        ("results/experiments", "results/experiments/main/summary.txt", rf"{FULL}\.parquet"),
        ("figures", "figures/phase3a_panels.pdf", rf"{FULL}phase3a_panels\.\w+"),
        ("results/logs/phase3a", TARGET, r"phase3a/\S+: .*log does not say .*is its disk full"),
    ],
)
def test_the_disk_is_full(run: Run, place: str, target: str, message: str) -> None:
    run.target = target
    run.start(prefix=small_disk(run.folder / place, keep=place == "figures"))
    run.fails(MACHINE, f"no space left in {place}", message, 90)
    assert (run.folder / target).stat().st_size > 0


def test_a_temporary_folder_with_too_long_a_name(run: Run, tmp_path: Path) -> None:
    """A Unix socket's path has at most 107 bytes."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    run.start(TMPDIR=str(long))
    run.fails(MACHINE, "`TMPDIR` too long for a Unix socket", r"phase3a/\S+: .*longer than the 107 bytes.*TMPDIR")
    assert not list(long.iterdir())


@pytest.mark.parametrize("which", ["phase3a", "phase3b"])
def test_memory_runs_out(request: pytest.FixtureRequest, which: str) -> None:
    """A limit on the process that holds the engine, set while it starts."""
    own: Run = request.getfixturevalue("run" if which == "phase3a" else "python_run")
    own.start()
    log = own.folder / "results/logs" / which  # the binding writes to it right before it loads the model
    process = until(own.engine if which == "phase3a" else lambda: own.program("measure.py") if list(log.rglob("*.log")) else None, 60, "it")
    process.rlimit(psutil.RLIMIT_DATA, (60 << 20, resource.RLIM_INFINITY))
    engine = "llama-server" if which == "phase3a" else "llama-cpp-python"
    own.fails(MACHINE, f"a limit of 60 MiB on the process of {engine}", rf"{which}/\S+: .*(memory|cannot load|exited|ended).*log", 30)


def test_the_clock_jumps(run: Run, tmp_path: Path) -> None:
    """An hour back and two hours on, while cells are measured. Durations come from the monotonic clock."""
    library, offset = tmp_path / "clock_jump.so", tmp_path / "offset"
    subprocess.run(["g++", "-x", "c", "-shared", "-fPIC", "-o", library, ROOT / "tests/clock_jump.c", "-ldl"], check=True)
    offset.write_bytes(struct.pack("q", 0))
    run.start(LD_PRELOAD=str(library), CLOCK_JUMP=str(offset))
    for seconds in (-3600, 7200):
        before = len(run.finished())
        until(lambda before=before: run.engine() if len(run.finished()) > before else None, 60, "the next cell")  # type: ignore[misc]
        with open(offset, "r+b") as file:
            file.write(struct.pack("q", seconds))
    assert run.process is not None and run.process.wait(60) == 0, run.output()[-3000:]
    run.check_results()
    frames = [tables.read_requests(run.cell(cell) / "requests.parquet") for cell in CELLS]
    starts = pl.concat(frames)["started_at"].dt.epoch("s").to_list()
    assert max(starts) - min(starts) > 9000, "it did jump"
    assert pl.concat(frames)["total_ms"].is_between(0, 5000).all()
    records = [json.loads((run.cell(cell) / "provenance.json").read_text()) for cell in CELLS]
    assert all(0 < record["wall_s"] < record["job_s"] < 60 for record in records)
    for path in run.folder.glob("results/raw/**/*.*"):  # files from a time to come, as after a jump back
        os.utime(path, (time.time() + 3600,) * 2)
    then = subprocess.run(command(run.folder, TARGET), capture_output=True, text=True)
    assert then.returncode == 0 and "rule phase3a" not in then.stdout + then.stderr
    fault_table.record(
        MACHINE, "the clock jumps by an hour back, then by three on", "none: durations are right", "nothing", "measures 0 of 4 cells"
    )


# --- two runs ------------------------------------------------------------------------------------------------------------------


def test_two_runs_in_one_folder(run: Run) -> None:
    """Also when a dry run, begun first, was still looking around as the first real one came."""
    run.start()
    run.wait_for_second_cell()
    dry = subprocess.run(command(run.folder, TARGET, "-n"), capture_output=True, text=True)
    assert dry.returncode == 0
    second = subprocess.run(command(run.folder, TARGET), capture_output=True, text=True)
    output = second.stdout + second.stderr
    assert second.returncode != 0 and "cannot be locked" in output
    assert run.process is not None and run.process.wait(90) == 0
    run.check_results()
    shown = re.search(r"^.*cannot be locked.*$", output, re.M)
    fault_table.record(
        "Two runs", "in one folder", f"(Snakemake) {shown[0].strip() if shown else ''}", "nothing", "the first goes on undisturbed"
    )


def test_two_runs_in_two_folders_measure_one_after_the_other(run: Run, template: Path, tmp_path: Path) -> None:
    other = Run(tmp_path / "other")
    shutil.copytree(template, other.folder)
    (tmp_path / "elsewhere").mkdir()
    other.start(TMPDIR=str(tmp_path / "elsewhere"))
    run.start()
    for each in (run, other):
        assert each.process is not None and each.process.wait(180) == 0, each.output()[-2000:]
        each.check_results()
    frames = [tables.read_requests(each.cell(cell) / "requests.parquet") for each in (run, other) for cell in CELLS]
    ends = pl.col("started_at") + pl.duration(microseconds=1e3 * pl.col("total_ms"))
    spans = sorted(frame.select(pl.col("started_at").min(), ends.max().alias("end")).row(0) for frame in frames)
    assert all(one[1] <= following[0] for one, following in pairwise(spans)), "two cells were measured at the same time"
    waits = re.search(r"^coldprefix: (\S+ waits for \S+ \(process \d+) in", run.output() + other.output(), re.M)
    assert waits
    fault_table.record(
        "Two runs", "in two folders, with two `TMPDIR`s", f"{waits[1]} in …)", "nothing", "both end well, no two cells at the same time"
    )


# --- who can listen, and what is told --------------------------------------------------------------------------------------------


def status_without_key(path: str, target: str) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(path)
        connection.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
        return int(connection.recv(100).split()[1])


def test_a_running_server_listens_to_nobody_else_and_its_key_is_told_to_nobody(run: Run) -> None:
    """Of vLLM the same is seen in test_pipeline.py, all through a run."""
    run.start()
    engine = run.wait_for_second_cell()
    processes = belonging(run.folder)
    listening = [c for p in processes for c in p.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
    assert all(c.laddr.ip == "127.0.0.1" for c in listening), listening
    key = engine.environ()["LLAMA_API_KEY"]
    assert len(key) >= 32
    for process in psutil.process_iter(["cmdline"]):
        assert key not in " ".join(process.info["cmdline"] or []), "every user can read command lines"
    path = next(part for part in cmdline(engine) if part.endswith("engine.sock"))
    assert Path(path).parent.stat().st_mode & 0o077 == 0
    assert status_without_key(path, "/completion") == 401
    assert run.process is not None and run.process.wait(90) == 0
    assert not [p for p in run.folder.rglob("*") if p.is_file() and key.encode() in p.read_bytes()]


def test_a_token_is_in_no_file_and_a_strange_folder_is_no_command(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's name is the user's; every other name in a command is checked (test_config.py)."""
    token = "hf_" + hashlib.sha256(b"no real one").hexdigest()[:34]
    monkeypatch.setenv("HF_TOKEN", token)
    folder = tmp_path / 'it\'s "a" $(touch broken); folder & `touch broken` #1'
    shutil.copytree(template, folder)
    own = Run(folder)
    own.start("--config", "configurations=A64_B64")
    assert own.process is not None and own.process.wait(90) == 0, own.output()[-3000:]
    assert (own.cell(CELLS[0]) / "requests.parquet").exists() and not list(tmp_path.rglob("broken"))
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert len(files) > 20 and not [p for p in files if token.encode() in p.read_bytes()]


def test_engines_get_no_token(make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:
    from coldprefix.engines.vllm.arguments import arguments as vllm

    monkeypatch.setenv("HF_TOKEN", "secret")
    assert "secret" not in vllm.environment(make_job("phase1", "hit")).values()


# --- vLLM --------------------------------------------------------------------------------------------------------------------------

VLLM = "vLLM's servers"


@pytest.fixture(scope="module")
def vllm_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A block has 128 tokens. The tiny model answers in a few ms, so that the API server at times sends two tokens in a chunk.
    config = CONFIG.replace("max_rejected: 0.5", "max_rejected: 0.9").replace("start_timeout_s: 5", "start_timeout_s: 120")
    return set_up(tmp_path_factory.mktemp("vllm"), config, "phase1")


@pytest.fixture
def vllm_run(vllm_template: Path, tmp_path: Path) -> Iterator[Run]:
    yield from copied(vllm_template, tmp_path / "run", "phase1")


def test_vllm_s_engine_core_dies_while_its_api_server_lives(vllm_run: Run) -> None:
    """And while it lived, it served nobody who had not shown its key (SECURITY.md says where it asks for that)."""
    told: list[int] = []

    def act() -> None:
        told.extend(status_without_key(str(proxy.real), path) for path in ("/v1/completions", "/health"))
        vllm_run.working("EngineCore").kill()

    vllm_run.start()
    proxy = vllm_run.tamper(4, "stream", act=act)
    until(lambda: proxy.acted_at, 200, "the fault")
    vllm_run.fails(VLLM, "SIGKILL to EngineCore in mid-stream", r"phase1/\S+: vllm serve .*log", began=proxy.acted_at, within_s=30)
    assert told[0] == 401 and told[1] != 401, told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("SIGKILL to the API server", r"phase1/\S+: vllm serve (was ended by signal 9|ended while).*log"),
        ("SIGKILL to the supervisor", r"phase1/\S+: vllm serve ended while.*log"),
        ("SIGSTOP to EngineCore", r"phase1/\S+: vllm serve gave no complete answer within 5 s \(timeout_s\).*log"),
        ("SIGKILL to the measuring job", ""),
        ("SIGKILL to Snakemake", r"phase1/\S+: ended by SIGTERM.*log"),
    ],
)
def test_vllm_s_processes(vllm_run: Run, fault: str, message: str) -> None:
    def act() -> None:
        how, who = fault.split(" to ")
        core = vllm_run.working("EngineCore")
        snakemake = psutil.Process(vllm_run.process.pid) if vllm_run.process else None
        target = {
            "EngineCore": core,
            "the API server": core.parent(),
            "the supervisor": psutil.Process(os.getsid(core.pid)),
            "the measuring job": vllm_run.program("measure.py"),
            "Snakemake": snakemake,
        }
        process = target[who]
        assert process is not None
        process.send_signal(signal.Signals[how])

    vllm_run.start()
    proxy = vllm_run.tamper(4, "stream", act=act)
    until(lambda: proxy.acted_at, 200, "the fault")
    snakemakes = r"Error in rule phase1:.*?log: \S+\.log" if not message else ""
    vllm_run.fails(VLLM, f"{fault} in mid-stream", message, began=proxy.acted_at, within_s=40, snakemakes=snakemakes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("500", "vllm serve answered 500: .*out of memory.*log"),
        ("truncated", "vllm serve (broke off|ended a stream).*log"),
        ("no usage", "vllm serve ended .*before its usage counts.*log"),
        ("no counts", "of 10 trials are not what they were meant to be.*did not report how many tokens it reused.*log"),
        ("wrong counts", "of 10 trials are not what they were meant to be.*reused 7 .*log"),
    ],
)
def test_vllm_s_spoilt_answers(vllm_run: Run, mode: str, message: str) -> None:
    vllm_run.start()
    proxy = vllm_run.tamper(0, "stream", spoil=tampering.SPOILT[mode])
    until(lambda: proxy.acted_at, 200, "the fault")
    vllm_run.fails(VLLM, f"answers: {mode}", rf"phase1/\S+: .*{message}", began=proxy.acted_at, within_s=30)
