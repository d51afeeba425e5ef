"""The disk is full, memory runs out, the clock jumps; and two runs at once."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import struct
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import fault_table
import polars as pl
import psutil
import pytest
from conftest import ROOT
from fault_run import FOUR, FOUR_CELLS, PATIENCE_S, TARGET, Run, measured, until

from coldprefix.data.parquet import read_requests

pytestmark = pytest.mark.engine

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
        pytest.param("results/experiments", "results/experiments/main/summary.txt", rf"{FULL}\.parquet", marks=pytest.mark.slow),
        pytest.param("figures", "figures/phase3a_panels.pdf", rf"{FULL}phase3a_panels\.\w+", marks=pytest.mark.slow),
        pytest.param("results/logs/phase3a", TARGET, r"phase3a/\S+: .*log does not say .*is its disk full", marks=pytest.mark.slow),
    ],
)
def test_the_disk_is_full(run: Run, place: str, target: str, message: str) -> None:
    run.target = target
    if place == "results/raw":
        shutil.rmtree(run.folder / place)
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


@pytest.mark.parametrize("which", ["phase3a", pytest.param("phase3b", marks=pytest.mark.slow)])
def test_memory_runs_out(request: pytest.FixtureRequest, which: str) -> None:
    """A limit on the process that holds the engine, set while it starts."""
    own: Run = request.getfixturevalue("run" if which == "phase3a" else "python_run")
    own.start()
    log = own.folder / f"results/logs/{which}/{own.cells[1]}.log"  # the binding writes to it right before it loads the model
    process = until(own.engine if which == "phase3a" else lambda: own.child() if log.exists() else None, PATIENCE_S, "it")
    process.rlimit(psutil.RLIMIT_DATA, (60 << 20, resource.RLIM_INFINITY))
    engine = "llama-server" if which == "phase3a" else "llama-cpp-python"
    own.fails(MACHINE, f"a limit of 60 MiB on the process of {engine}", rf"{which}/\S+: .*(memory|cannot load|exited|ended).*log", 30)


@pytest.mark.slow
def test_the_clock_jumps(run: Run, tmp_path: Path) -> None:
    """An hour back and two hours on, while cells are measured. Durations come from the monotonic clock."""
    library, offset = tmp_path / "clock_jump.so", tmp_path / "offset"
    subprocess.run(["g++", "-x", "c", "-shared", "-fPIC", "-o", library, ROOT / "tests/faults/clock_jump.c", "-ldl"], check=True)
    offset.write_bytes(struct.pack("q", 0))
    run.cells = FOUR_CELLS
    run.start(*FOUR, LD_PRELOAD=str(library), CLOCK_JUMP=str(offset))
    for seconds in (-3600, 7200):
        before = len(run.finished())
        until(lambda before=before: run.engine() if len(run.finished()) > before else None, PATIENCE_S, "the next cell")  # type: ignore[misc]
        with open(offset, "r+b") as file:
            file.write(struct.pack("q", seconds))
    assert run.process is not None and run.process.wait(PATIENCE_S) == 0, run.output()[-3000:]
    run.check_results()
    frames = [read_requests(run.cell(cell) / "requests.parquet") for cell in run.cells]
    starts = pl.concat(frames)["started_at"].dt.epoch("s").to_list()
    assert max(starts) - min(starts) > 9000, "it did jump"
    assert pl.concat(frames)["total_ms"].is_between(0, 60_000).all(), "no hour is in a duration"
    records = [json.loads((run.cell(cell) / "provenance.json").read_text()) for cell in run.cells]
    assert all(0 < record["wall_s"] < record["job_s"] < 600 for record in records)
    for path in run.folder.glob("results/raw/**/*.*"):  # files from a time to come, as after a jump back
        os.utime(path, (time.time() + 3600,) * 2)
    then = run.again(*FOUR)
    assert then.returncode == 0 and measured(then.stdout + then.stderr, "phase3a") == 0
    fault_table.record(
        MACHINE, "the clock jumps by an hour back, then by three on", "none: durations are right", "nothing", "measures 0 of 4 cells"
    )


def test_two_runs_in_one_folder(run: Run) -> None:
    """Also when a dry run, begun first, was still looking around as the first real one came."""
    run.start()
    run.wait_for_second_cell()
    job = until(lambda: run.program("measure.py"), 10, "the second cell's job")
    job.suspend()  # or the first run may have ended before the second begins
    dry = run.again("-n")
    second = run.again()
    job.resume()
    assert dry.returncode == 0
    output = second.stdout + second.stderr
    assert second.returncode != 0 and "cannot be locked" in output
    assert run.process is not None and run.process.wait(PATIENCE_S) == 0
    run.check_results()
    shown = re.search(r"^.*cannot be locked.*$", output, re.M)
    fault_table.record(
        "Two runs", "in one folder", f"(Snakemake) {shown[0].strip() if shown else ''}", "nothing", "the first goes on undisturbed"
    )


def test_two_runs_in_two_folders_measure_one_after_the_other(run: Run, template: Path, tmp_path: Path) -> None:
    other = Run(tmp_path / "other")
    shutil.copytree(template, other.folder)
    other.start()
    run.start()
    for each in (run, other):
        assert each.process is not None and each.process.wait(PATIENCE_S) == 0, each.output()[-2000:]
        each.check_results()
    frames = [read_requests(each.cell(each.cells[1]) / "requests.parquet") for each in (run, other)]
    ends = pl.col("started_at") + pl.duration(microseconds=1e3 * pl.col("total_ms"))
    spans = sorted(frame.select(pl.col("started_at").min(), ends.max().alias("end")).row(0) for frame in frames)
    assert all(one[1] <= following[0] for one, following in pairwise(spans)), "two cells were measured at the same time"
    waits = re.search(r"^coldprefix: (\S+ waits for \S+ \(process \d+) in", run.output() + other.output(), re.M)
    assert waits
    fault_table.record(
        "Two runs", "in two folders, with two `TMPDIR`s", f"{waits[1]} in …)", "nothing", "both end well, no two cells at the same time"
    )

    shutil.rmtree(other.tmp, ignore_errors=True)
