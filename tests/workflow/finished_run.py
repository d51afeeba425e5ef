"""One run of the whole pipeline with a tiny model on the real engines, which several tests look at (loaded by conftest.py)."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import polars as pl
import psutil
import pytest

from coldprefix.setup import building

Run = Callable[..., subprocess.CompletedProcess[str]]

# A block of vLLM has 128 tokens on the CPU. The tiny model answers in a few ms, so that vLLM's API server at times sends two
# tokens in a chunk, which is rejected: hence the generous max_rejected. Time-outs hold on a machine that is ten times as slow.
TINY = """
model: gpt2-tiny
accelerator: cpu
processes: 1                   # several, and partners beside it where it has those
partners: []
cells:
  "phase3a/*/*": {partners: [hit, miss, cold]}
  "phase3b/*/*": {processes: 3, partners: [hit, miss, cold]}
trials: 4
burn_in: 1
settle_ms: 0
stream_tokens: 8
calibration_samples: 2
peer_rounds: 3
max_rejected: 0.5
configurations: [A256_B128]
question_tokens: 8
experiments: [main, text, chat, resets, again, host_tier, slots]
sweeps:
  text: {phases: [phase3a], configurations: [A384_B256], states: [hit], stream_tokens: 4, request_form: text}
  chat: {phases: [phase1, phase3a], configurations: [A384_B256], states: [hit], partners: [miss], stream_tokens: 4, request_form: chat}
  resets:                        # repeated prompts, so that only the reset can make a warm-up cold; vLLM's is asked by the check of answers
    {phases: [phase3b], configurations: [A256_B128], states: [hit], content: repeated, reset: trial}
  again:                         # repeated misses, which stay misses in a single slot
    {phases: [phase3b], configurations: [A256_B128], states: [miss], content: repeated}
  host_tier: {states: [miss], partners: [], trials: 4, stream_tokens: 2}
"""
PHASES = ("phase1", "phase2", "phase3a", "phase3b")
FIGURES = [f"{phase}_panels" for phase in PHASES]


def nothing(done: subprocess.CompletedProcess[str]) -> bool:
    return "Nothing to be done" in done.stdout + done.stderr


class Watch(threading.Thread):
    """Looks at the processes of a run every 0.3 s: which addresses they listen on, their command lines, and the keys of the servers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.done = threading.Event()
        self.listening: set[tuple[str, str]] = set()  # (program, address)
        self.commands: set[str] = set()
        self.keys: dict[str, set[str]] = {"LLAMA_API_KEY": set(), "VLLM_API_KEY": set()}

    def run(self) -> None:
        while not self.done.wait(0.3):
            for process in psutil.process_iter(["cwd", "cmdline"]):
                if process.info["cwd"] != str(self.folder):
                    continue
                command = " ".join(process.info["cmdline"] or [])
                self.commands.add(command)
                try:
                    for name, found in self.keys.items():
                        found |= {process.environ()[name]} if name in process.environ() else set()
                    for connection in process.net_connections("inet"):
                        if connection.status == psutil.CONN_LISTEN:
                            self.listening.add((command[:80], connection.laddr.ip))
                except psutil.Error:
                    pass


@pytest.fixture(scope="session")
def watched(snakemake: Run, tmp_path_factory: pytest.TempPathFactory) -> Watch:
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "tiny.yaml").write_text(TINY)
    # With a cache that is not where it usually is, and nothing there.
    home = tmp_path_factory.mktemp("home")
    places = {"COLDPREFIX_CACHE": str(building.CACHE), "HOME": str(home)}
    watch = Watch(folder)
    watch.start()
    done = snakemake(folder, "--cores", "2", "--configfile", str(folder / "tiny.yaml"), timeout=1800, **places)
    watch.done.set()
    watch.join()
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert not (home / ".cache" / "coldprefix").exists(), "something was built a second time"
    assert "TTFT ms" in done.stdout + done.stderr, "the table of medians is printed"
    return watch


@pytest.fixture(scope="session")
def finished(watched: Watch) -> Path:
    return watched.folder


@pytest.fixture
def again(snakemake: Run, finished: Path) -> Run:
    """Run Snakemake in the folder of the finished run."""
    return lambda *arguments, **options: snakemake(finished, "--configfile", str(finished / "tiny.yaml"), *arguments, **options)


@pytest.fixture
def spare(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to spoil."""
    return shutil.copytree(finished, tmp_path / "spare")


@pytest.fixture
def in_spare(snakemake: Run, spare: Path) -> Run:
    """Run Snakemake in the copy."""
    # After the others: --configfile takes what follows it, a target, too.
    return lambda *arguments, **options: snakemake(spare, *arguments, "--configfile", str(spare / "tiny.yaml"), **options)


@pytest.fixture
def requests(finished: Path) -> pl.DataFrame:
    return pl.read_parquet(finished / "results" / "requests.parquet")
