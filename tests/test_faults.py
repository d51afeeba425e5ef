"""What goes wrong while a run is under way, done to real processes: what the user sees, what is left, what the next run does.

`make faults` runs all of it and writes docs/faults.md; `make test` leaves out what is marked slow.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import polars as pl
import psutil
import pytest
from conftest import ROOT

from coldprefix import environments, tables
from coldprefix.job import Job

pytestmark = pytest.mark.engine

CONFIG = """
model: gpt2-tiny
accelerator: cpu
experiments: [main]
phases: [phase3a]
configurations: [A64_B64, A32_B96]
question_tokens: 8
trials: 30
burn_in: 0
settle_ms: 5
stream_tokens: 30
timeout_s: 3
calibration_samples: 2
peer_rounds: 3
max_rejected: 0.5
"""
CELLS = [f"phase3a/{c}/{s}" for c in ("A64_B64", "A32_B96") for s in ("hit", "miss")]
TARGET = "results/summary.txt"
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
ENDS_WITHIN_S = 20.0  # of a fault, for a job that waits at most timeout_s for an answer


@dataclass
class Outcome:
    """A row of docs/faults.md."""

    fault: str
    message: str
    seconds: float
    left: str
    then: str


OUTCOMES: list[Outcome] = []


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    yield
    target = os.environ.get("COLDPREFIX_FAULT_TABLE")
    if target and OUTCOMES:
        lines = [
            "<!-- written by `make faults` -->",
            "# Faults",
            "",
            "What each fault looks like to the user, how long after it the run has ended, what it leaves behind, and what the next run does.",
            "Done by `make faults` to real processes, with a tiny model; four cells, `timeout_s: 3`.",
            "",
            "| fault | message | ended after | left behind | the next run |",
            "| --- | --- | --- | --- | --- |",
        ]
        lines += [f"| {o.fault} | {o.message} | {o.seconds:.1f} s | {o.left} | {o.then} |" for o in OUTCOMES]
        Path(target).write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything is set up and nothing measured."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "my.yaml").write_text(CONFIG)
    done = subprocess.run(command(folder, "results/preflight/agreed.json", *setup_files()), capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return folder


def setup_files() -> list[str]:
    return ["results/setup/environments/llamacpp.json", "results/setup/gguf/gpt2-tiny.json"]


def command(folder: Path, *arguments: str) -> list[str]:
    return [
        SNAKEMAKE,
        "-s",
        str(ROOT / "Snakefile"),
        "--directory",
        str(folder),
        "--configfile",
        f"{folder}/my.yaml",
        "--nocolor",
        *arguments,
    ]


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
    """Living processes of a run: those that name its folder, and all below them."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(str(folder) in part for part in process.info["cmdline"] or []):
            found[process.pid] = process
            try:
                found |= {child.pid: child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE}
            except psutil.Error:
                pass
    return list(found.values())


def until(condition: Callable[[], object], timeout_s: float, what: str) -> object:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.005)
    raise AssertionError(f"waited {timeout_s} s for {what}")


@dataclass
class Run:
    """A folder with a run in it."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None
    before: set[str] = field(default_factory=set)
    target: str = TARGET

    def start(self, *arguments: str, prefix: list[str] | None = None) -> None:
        self.before = {p.name for p in Path(tempfile.gettempdir()).glob("coldprefix-*")}
        with open(self.folder / "output.txt", "wb") as output:
            self.process = subprocess.Popen(
                [*(prefix or []), *command(self.folder, self.target, *arguments)],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
            )

    def engine(self) -> psutil.Process | None:
        return next((p for p in belonging(self.folder) if name_of(p) == "llama-server"), None)

    def program(self, name: str) -> psutil.Process | None:
        return next((p for p in belonging(self.folder) if any(part.endswith(name) for part in cmdline(p)[:3])), None)

    def cell(self, cell: str) -> Path:
        return self.folder / "results/raw" / cell

    def finished(self) -> dict[str, str]:
        """Cells that are there, and the hash of their rows."""
        names = [cell for cell in CELLS if (self.cell(cell) / "provenance.json").exists()]
        return {name: hashlib.sha256((self.cell(name) / "requests.parquet").read_bytes()).hexdigest() for name in names}

    def output(self) -> str:
        return (self.folder / "output.txt").read_text(errors="replace")

    def messages(self) -> list[str]:
        """What coldprefix said, without its progress."""
        found = re.findall(r"^coldprefix: (.*?)(?=\n\n|\Z)", self.output(), re.M | re.S)
        return [m for m in found if "waits for" not in m and "has been removed" not in m]

    def wait_until_measuring(self) -> psutil.Process:
        """The engine of the second cell, well inside its trials."""
        until(lambda: len(self.finished()) >= 1, 60, "the first cell")
        first = list(self.finished())
        found = until(lambda: len(self.finished()) == len(first) and self.engine(), 60, "the second cell's engine")
        assert isinstance(found, psutil.Process)
        until(lambda: found.cpu_times().user + found.cpu_times().system > 0.6, 60, "the second cell's trials")
        return found

    def fails(self, fault: str, message: str, within_s: float = ENDS_WITHIN_S) -> None:
        """The run ends soon, with an exit code, one message and nothing left; the next run does the rest and no more."""
        began = time.monotonic()
        assert self.process is not None
        code = self.process.wait(within_s)
        until(lambda: not belonging(self.folder), 10, f"the end of {[cmdline(p) for p in belonging(self.folder)]}")
        seconds = time.monotonic() - began
        assert code != 0, self.output()[-3000:]
        said = self.messages()
        if message:
            assert any(re.search(message, m, re.S) for m in said), (said, self.output()[-3000:])
            said = [m for m in said if re.search(message, m, re.S)]
            assert "Traceback" not in self.output()
        left = self.left()
        assert not left, left
        kept = self.finished()
        before_s = time.monotonic()
        done = subprocess.run(command(self.folder, self.target), capture_output=True, text=True, cwd=self.folder)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        again = len(re.findall(r"^(?:local)?rule phase3a:", done.stdout + done.stderr, re.M))
        assert self.finished().items() >= kept.items(), "finished cells keep their bytes"
        assert len(self.finished()) == len(CELLS) and again == len(CELLS) - len(kept)
        self.check_results()
        assert not self.left()
        shown = re.sub(re.escape(str(self.folder)), "…", said[0]).splitlines()[0].replace("|", "\\|") if message else "Snakemake's own"
        removed = "says that a lock was removed, " if "has been removed" in done.stderr + done.stdout else ""
        then = f"{removed}measures {again} of {len(CELLS)} cells ({time.monotonic() - before_s:.0f} s)"
        OUTCOMES.append(Outcome(fault, shown[:300], seconds, "nothing", then))

    def left(self) -> list[str]:
        """Partial files, folders of servers, and processes."""
        files = [str(p) for p in self.folder.rglob("*") if ".part" in p.name and ".snakemake" not in p.parts]
        folders = [p.name for p in Path(tempfile.gettempdir()).glob("coldprefix-*") if p.is_dir() and p.name not in self.before]
        return files + folders + [str(p) for p in belonging(self.folder)]

    def check_results(self) -> None:
        for cell in CELLS:
            frame = tables.read_requests(self.cell(cell) / "requests.parquet")
            assert frame.height == 4 * 30
            meant = frame.filter(pl.col("rejection").is_null() & pl.col("intended_cached_tokens").is_not_null())
            assert (meant["cached_tokens"] == meant["intended_cached_tokens"]).all()


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Iterator[Run]:
    folder = tmp_path / "run"
    shutil.copytree(template, folder)
    own = Run(folder)
    yield own
    for process in belonging(folder):  # of a test that failed
        process.kill()


# --- the engine ------------------------------------------------------------------------------------------------------------


def test_the_server_is_killed_before_it_is_ready(run: Run) -> None:
    run.start()
    engine = until(run.engine, 60, "an engine")
    assert isinstance(engine, psutil.Process)
    engine.kill()
    run.fails("server: SIGKILL before it is ready", r"phase3a/\S+: llama-server was ended by signal 9 \(SIGKILL\) while starting.*\.log")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_the_server_is_killed_while_it_answers(run: Run, how: signal.Signals) -> None:
    run.start()
    run.wait_until_measuring().send_signal(how)
    run.fails(
        f"server: {how.name} while it answers",
        rf"phase3a/\S+: llama-server was ended by signal {how} \({how.name}\) while answering.*\.log",
    )


def test_the_server_hangs(run: Run) -> None:
    run.start()
    run.wait_until_measuring().suspend()
    run.fails("server: SIGSTOP while it answers", r"phase3a/\S+: llama-server gave no complete answer within 3 s \(timeout_s\).*\.log", 30)


# --- our own programs -------------------------------------------------------------------------------------------------------


def test_the_measuring_job_is_killed(run: Run) -> None:
    run.start()
    run.wait_until_measuring()
    job = run.program("measure.py")
    assert job is not None
    job.kill()
    run.fails("measuring job: SIGKILL", "")


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT to the group", "SIGKILL"])
def test_snakemake_is_killed(run: Run, how: str) -> None:
    run.start()
    run.wait_until_measuring()
    assert run.process is not None
    if how == "SIGINT to the group":
        os.killpg(run.process.pid, signal.SIGINT)
    else:
        run.process.send_signal(signal.Signals[how])
    run.fails(f"Snakemake: {how}", "", 60)


# --- disk and memory ----------------------------------------------------------------------------------------------------------


def small_disk(folder: Path) -> list[str]:
    """Prefix of a command that sees a disk of one page at ``folder``; in a name space of its own, so that no one else does."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        "unshare",
        "--map-root-user",
        "--mount",
        "bash",
        "-c",
        'mount -t tmpfs -o size=4k tmpfs "$0" && exec "$@"',
        str(folder),
    ]


@pytest.fixture(scope="module")
def can_mount(tmp_path_factory: pytest.TempPathFactory) -> None:
    prefix = small_disk(tmp_path_factory.mktemp("disk"))
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets us mount nothing, not even in a user name space")


@pytest.mark.usefixtures("can_mount")
@pytest.mark.parametrize(
    ("place", "target", "what"),
    [
        ("results/raw", TARGET, "raw data"),
        ("results/experiments", "results/experiments/main/summary.txt", "parquet"),
        ("figures", "figures/phase3a_panels.pdf", "a figure"),
    ],
)
def test_the_disk_is_full(run: Run, place: str, target: str, what: str) -> None:
    run.target = target
    prefix = small_disk(run.folder / place)
    if place == "figures":  # where a job fails, Snakemake removes the folder that it leaves empty, which a mounted one resists
        prefix[5] = 'mount -t tmpfs -o size=4k tmpfs "$0" && touch "$0/.keep" && exec "$@"'
    run.start(prefix=prefix)
    run.fails(f"disk full while writing {what}", r"there is no space left on the disk", 90)
    if run.target != TARGET:
        assert (run.folder / target).stat().st_size > 0


# --- spoilt answers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(template: Path, tmp_path: Path) -> Path:
    """A cache in which llama-server is the real one behind a proxy."""
    (real,) = (p.parent for p in (environments.cache_folder() / "llamacpp").glob("cpu-*/complete.json"))
    cache = tmp_path / "cache"
    folder = cache / "llamacpp" / real.name
    folder.mkdir(parents=True)
    for name in ("environments", "sources"):
        (cache / name).symlink_to(environments.cache_folder() / name)
    for file in real.iterdir():
        (folder / ("llama-server.real" if file.name == "llama-server" else file.name)).symlink_to(file)
    shutil.copy(ROOT / "tests" / "tampering_server.py", folder / "llama-server")
    (folder / "llama-server").chmod(0o755)
    return folder


def tiny_job(make_job: Callable[..., Job], phase: str) -> Job:
    values = {"model": "gpt2-tiny", "accelerator": "cpu", "trials": 6, "burn_in": 0, "settle_ms": 0, "stream_tokens": 4, "timeout_s": 5}
    return make_job(phase, "miss", {**values, "configurations": ["A64_B64"], "experiments": ["main"], "question_tokens": 8}, "A64_B64")


def measure(job: Job, models: Path, out: Path, **options: object) -> subprocess.CompletedProcess[str]:
    python = str(ROOT / "envs" / job.environment / ".venv/bin/python")
    files = ["--model", str(models / "gpt2-tiny"), "--gguf", str(models / "gpt2-tiny-F16.gguf"), "--log", str(out / "engine.log")]
    files += ["--requests", str(out / "requests.parquet"), "--provenance", str(out / "provenance.json")]
    program = [python, str(ROOT / "workflow/scripts/measure.py"), "--job", job.model_dump_json(exclude_none=True), *files]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("500", "llama-server answered 500: .*out of memory.*engine.log"),
        ("no JSON", "llama-server sent something that is not JSON|llama-server ended a stream"),
        ("truncated", "llama-server broke off|llama-server ended a stream in mid-event"),
        ("no counts", "5 of 6 trials are not what they were meant to be.*did not report how many tokens it reused"),
        ("wrong counts", "5 of 6 trials are not what they were meant to be.*reused 7 "),
    ],
)
def test_spoilt_answers(spoilt: Path, template: Path, tmp_path: Path, make_job: Callable[..., Job], mode: str, message: str) -> None:
    (spoilt / "mode").write_text(mode)
    before = set(Path(tempfile.gettempdir()).glob("coldprefix-*"))
    began = time.monotonic()
    done = measure(
        tiny_job(make_job, "phase3a"), template / "models", tmp_path, env={**os.environ, "COLDPREFIX_CACHE": str(spoilt.parents[1])}
    )
    seconds = time.monotonic() - began
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert re.search(rf"coldprefix: phase3a/A64_B64/miss: .*{message}", done.stderr, re.S), done.stderr
    assert not (tmp_path / "requests.parquet").exists() and not (tmp_path / "provenance.json").exists()
    rejected = mode.endswith("counts")
    assert (tmp_path / "requests.rejected.parquet").exists() == rejected
    assert set(Path(tempfile.gettempdir()).glob("coldprefix-*")) == before
    shown = done.stderr[done.stderr.index("coldprefix: ") + 12 :].splitlines()[0].replace(str(tmp_path), "…")
    left = "the rejected rows, named so" if rejected else "nothing"
    OUTCOMES.append(Outcome(f"answers: {mode}", shown[:300], seconds, left, "measures the cell"))


def test_memory_runs_out(template: Path, tmp_path: Path, make_job: Callable[..., Job]) -> None:
    """A limit on the process in which the engine runs."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (250 << 20, 250 << 20))

    job = tiny_job(make_job, "phase3b")
    began = time.monotonic()
    done = measure(job, template / "models", tmp_path, preexec_fn=limit)
    seconds = time.monotonic() - began
    assert done.returncode != 0 and not (tmp_path / "requests.parquet").exists()
    assert re.search(r"coldprefix: .*(memory|cannot load|allocate)", done.stderr, re.S), done.stderr[-2000:]
    shown = done.stderr[done.stderr.index("coldprefix: ") + 12 :].splitlines()[0].replace(str(template), "…")
    OUTCOMES.append(Outcome("memory: a limit of 250 MiB on the measuring process", shown[:300], seconds, "nothing", "measures the cell"))


# --- two runs ------------------------------------------------------------------------------------------------------------------


def test_two_runs_in_one_folder(run: Run) -> None:
    run.start()
    run.wait_until_measuring()
    second = subprocess.run(command(run.folder, TARGET), capture_output=True, text=True)
    assert second.returncode != 0 and "cannot be locked" in second.stdout + second.stderr
    assert run.process is not None and run.process.wait(90) == 0
    run.check_results()


def test_two_runs_in_two_folders_measure_one_after_the_other(run: Run, template: Path, tmp_path: Path) -> None:
    other = Run(tmp_path / "other")
    shutil.copytree(template, other.folder)
    other.start()
    run.start()
    for each in (run, other):
        assert each.process is not None and each.process.wait(180) == 0, each.output()[-2000:]
        each.check_results()
    frames = [tables.read_requests(each.cell(cell) / "requests.parquet") for each in (run, other) for cell in CELLS]
    ends = pl.col("started_at") + pl.duration(microseconds=1e3 * pl.col("total_ms"))
    spans = sorted(frame.select(pl.col("started_at").min(), ends.max().alias("end")).row(0) for frame in frames)
    assert all(one[1] <= following[0] for one, following in pairwise(spans)), "two cells were measured at the same time"
    assert "waits for" in run.output() + other.output()


# --- who can listen, and what is told --------------------------------------------------------------------------------------------


def test_a_running_server_listens_to_nobody_else_and_its_key_is_told_to_nobody(run: Run) -> None:
    run.start()
    engine = run.wait_until_measuring()
    processes = belonging(run.folder)
    listening = [c for p in processes for c in p.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
    assert all(c.laddr.ip == "127.0.0.1" for c in listening), listening
    key = engine.environ()["LLAMA_API_KEY"]
    assert len(key) >= 32
    for process in psutil.process_iter(["cmdline"]):
        assert key not in " ".join(process.info["cmdline"] or []), "every user can read command lines"
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
    from coldprefix.engines import vllm

    monkeypatch.setenv("HF_TOKEN", "secret")
    assert "secret" not in vllm.environment(make_job("phase1", "hit")).values()


# --- a part of vLLM ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_vllm_s_engine_core_dies_while_its_api_server_lives(tmp_path: Path) -> None:
    folder = tmp_path / "vllm"
    folder.mkdir()
    (folder / "my.yaml").write_text(CONFIG.replace("[phase3a]", "[phase1]").replace("trials: 30", "trials: 400"))
    own = Run(folder, target="results/raw/phase1/A64_B64/hit/requests.parquet")
    own.start()
    log = folder / "results/logs/phase1/A64_B64/hit.log"
    until(lambda: log.exists() and "Application startup complete" in log.read_text(errors="replace"), 200, "vllm serve")
    time.sleep(1.0)
    (core,) = [p for p in belonging(folder) if "EngineCore" in " ".join(cmdline(p))]
    core.kill()
    began = time.monotonic()
    assert own.process is not None and own.process.wait(60) != 0
    until(lambda: not belonging(folder), 20, f"the end of {belonging(folder)}")
    seconds = time.monotonic() - began
    (message, *_) = [m for m in own.messages() if m.startswith("phase1/A64_B64/hit: ")]
    assert "hit.log" in message and not own.left()
    OUTCOMES.append(
        Outcome("vLLM: EngineCore killed, API server alive", message.splitlines()[0][:300], seconds, "nothing", "measures the cell")
    )


def test_a_clock_that_jumps_changes_no_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations come from the monotonic clock; only `started_at` follows the wall clock."""
    from coldprefix.clock import Stopwatch

    real = time.time
    watch = Stopwatch()
    monkeypatch.setattr(time, "time", lambda: real() - 3600)
    time.sleep(0.01)
    assert 10 <= watch.ms() < 5000 and json.dumps(watch.started_at)
