"""A real SLURM of two nodes on this machine: cells of two machines, and what is left and said when a job, a node or the head is ended."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import fault_table
import polars as pl
import psutil
import pytest
from fault_run import until
from slurm_run import CONFIG, TARGET, Run, checkout, cluster, driver, queue

SECTION = "Under SLURM"
PREPARED = ["results/setup/models/gpt2-tiny.json", "results/setup/environments/driver.json", "results/preflight/agreed.json"]
VARY = ["--config", "vary=host"]
CELLS = ["phase4/A64_B32/hit", "phase4/A64_B32/miss"]
SLOW = CONFIG + '"null": {us_per_token: 4000}\n'  # so that there is time to do something to a cell
PATIENCE_S = 240.0


def lacking() -> str | None:
    if os.getuid():
        return "needs root, who starts SLURM's daemons"
    if not shutil.which("slurmctld") or not shutil.which("munged"):
        return "needs slurmctld, slurmd and munge: tests/slurm/cluster.sh up installs them from the distribution"
    link = Path("/etc/slurm/slurm.conf")
    if link.exists() and not link.is_symlink():
        return "this machine has a SLURM of its own"
    return None if (driver() / "snakemake").exists() else "needs python3 workflow/scripts/set_up.py driver-slurm"


pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.skipif(bool(lacking()), reason=str(lacking()))]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a cluster that is up."""
    folder = tmp_path_factory.mktemp("cluster") / "c"
    cluster("up", str(folder))
    yield folder
    cluster("down", str(folder))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("source") / "copy")


@pytest.fixture(scope="module")
def prepared(nodes: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything is prepared, after a run under SLURM was refused that it was not."""
    run = Run(source, tmp_path_factory.mktemp("prepared"), nodes)
    (run.folder / "my.yaml").write_text(SLOW)
    done = run.run("slurm", TARGET, *VARY)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and not queue() and not run.cells()
    assert re.search(r"not everything is prepared for a cluster \(environment, model, preflight, settings to do\)", said), said[-3000:]
    assert f"--configfile {run.folder}/my.yaml --config vary=host -- prepared" in said, "the command that it names has this run's values"
    done = run.run("default", *PREPARED)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return run.folder


@pytest.fixture
def run(prepared: Path, nodes: Path, source: Path, tmp_path: Path) -> Iterator[Run]:
    own = Run(source, shutil.copytree(prepared, tmp_path / "run"), nodes)
    yield own
    own.end()
    for job in queue():
        subprocess.run(["scancel", job["id"]], check=True)


def digests(run: Run) -> dict[str, str]:
    """Of the raw files."""
    files = (path for path in (run.folder / "results").rglob("raw/**/*") if path.is_file())
    return {str(path.relative_to(run.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def living(run: Run) -> list[str]:
    """Processes that work in the run's folder or name it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        if process.pid != os.getpid() and (str(run.folder) in command or process.info["cwd"] == str(run.folder)):
            found += [command] if process.info["status"] != psutil.STATUS_ZOMBIE else []
    return found


def measuring(run: Run) -> list[dict[str, str]]:
    """Jobs of which one has opened its engine, which writes the log."""
    logs = list((run.folder / "results/logs/phase4").rglob("*.log"))
    return [job for job in queue() if job["state"] == "RUNNING"] if logs else []


def messages(run: Run) -> str:
    """What the measuring programs said: Snakemake keeps it in the logs of SLURM's jobs, which it names."""
    found = [file.read_text(errors="replace") for file in (run.folder / ".snakemake/slurm_logs").rglob("*.log")]
    own = re.findall(r"^coldprefix: (?!.* waits for )(.+)$", "\n".join(found), re.M)
    theirs = re.findall(r"^(?:slurmstepd: )?error: (\*\*\*.+?\*\*\*|.*memory.*)$", "\n".join(found), re.M | re.I)
    return next(iter([*own, *theirs]), "")


def ended(run: Run, fault: str, began: float, patience_s: float, *again: str) -> None:
    """The run has failed, nothing is left, and the next one measures what is missing and nothing else."""
    assert run.process is not None
    code = run.process.wait(patience_s)
    seconds = time.monotonic() - began
    output = run.output()
    assert code == 1, output[-3000:]
    kept, bytes_kept = run.cells(), digests(run)
    assert len(kept) < 2, "a cell was lost"
    until(lambda: not living(run), 30, f"the end of {living(run)}")
    assert not run.left()
    assert {Path(name).parent for name in bytes_kept} == {Path("results/raw") / cell for cell in kept}, "half a cell is none"
    told = re.search(r"SLURM[- ]job '?\d+'? failed.*?(?=\n)|SLURM status is: \S+", output)
    said = messages(run) or (f"(Snakemake) {told[0]}" if told else "")
    assert said, output[-4000:]
    done = run.run("slurm", TARGET, *VARY, *again)
    then = done.stdout + done.stderr
    assert done.returncode == 0, then[-3000:]
    measured = len(re.findall(r"has been submitted with SLURM jobid", then))
    assert measured == 2 - len(kept) and run.cells() == CELLS
    assert digests(run).items() >= bytes_kept.items() and not run.left()
    fault_table.record(
        SECTION, fault, said.replace(str(run.folder), "…"), "nothing", f"measures {measured} of 2 cells", seconds, patience_s
    )


def test_hit_and_miss_of_two_nodes_are_two_machines_and_only_if_asked(run: Run) -> None:
    for arguments, refused in (
        ([], "cells may land on several machines, which aggregation would refuse: write vary=host"),
        ([*VARY, "threads=auto"], "threads: auto would be that of the machine that submits; write threads=N"),
    ):
        done = run.run("slurm", TARGET, *arguments)
        assert done.returncode == 1 and refused in done.stdout + done.stderr and not queue() and not run.cells()
    done = run.run("slurm", TARGET, *VARY)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    hosts = [json.loads((run.folder / "results/raw" / cell / "provenance.json").read_text())["host"] for cell in CELLS]
    assert {host["slurm"]["node"] for host in hosts} == {"n1", "n2"} and {host["slurm"]["partition"] for host in hosts} == {"measure"}
    assert len({host["machine"] for host in hosts}) == 2 and len({host["cpu"] for host in hosts}) == 1
    effect = pl.read_parquet(run.folder / "results/summary.parquet").row(by_predicate=pl.col("metric") == "ttft_cost_ms", named=True)
    assert effect["processes"] == 6 and effect["df"] == 2, "a block for each machine, of three processes"
    assert effect["median"] > 0.1 and effect["ci_low"] < effect["median"] < effect["ci_high"]
    done = run.run("slurm", TARGET, *VARY, "-n")
    assert "Nothing to be done" in done.stdout + done.stderr


def test_a_job_that_is_cancelled(run: Run) -> None:
    run.start(TARGET, *VARY)
    job = until(lambda: measuring(run), PATIENCE_S, "a cell")[0]
    began = time.monotonic()
    subprocess.run(["scancel", job["id"]], check=True)
    ended(run, "scancel in mid-cell", began, PATIENCE_S)


def test_a_node_that_goes_down_in_mid_cell(run: Run, nodes: Path) -> None:
    run.start(TARGET, *VARY)
    job = until(lambda: measuring(run), PATIENCE_S, "a cell")[0]
    began = time.monotonic()
    cluster("fail", job["node"], str(nodes))
    try:
        until(lambda: job["id"] not in [own["id"] for own in queue()], PATIENCE_S, "SLURM to know")
    finally:
        cluster("back", job["node"], str(nodes))
    ended(run, "the node goes down in mid-cell", began, PATIENCE_S)


def test_a_job_whose_time_is_over(run: Run, nodes: Path) -> None:
    """It waits for the lock of its machine, which counts."""
    with ExitStack() as stack:
        for node in ("n1", "n2"):
            held = stack.enter_context(open(nodes / f"{node}.lock", "w"))
            fcntl.flock(held, fcntl.LOCK_EX)
        run.start(TARGET, *VARY, "--set-resources", "phase4:runtime=1")
        jobs = until(lambda: [job["id"] for job in queue() if job["state"] == "RUNNING"], PATIENCE_S, "a job")
        began = time.monotonic()
        until(lambda: not set(jobs) & {job["id"] for job in queue()}, PATIENCE_S, "the end of its time")
    ended(run, "out of time (1 minute)", began, PATIENCE_S)


def test_a_job_that_takes_more_memory_than_it_asked_for(run: Run, nodes: Path) -> None:
    run.start(TARGET, *VARY, "--set-resources", "phase4:mem_mb=30")
    began = time.monotonic()
    assert run.process is not None and run.process.wait(PATIENCE_S) == 1, run.output()[-3000:]
    logs = [*(run.folder / ".snakemake/slurm_logs").rglob("*.log"), *(nodes / "log").iterdir()]
    found = [line for file in logs for line in file.read_text(errors="replace").splitlines() if "exceeded memory limit" in line.lower()]
    assert found, [file.read_text(errors="replace")[-1500:] for file in logs]
    ended(run, "out of memory (30 MB)", began, PATIENCE_S)


def test_a_shared_disk_that_is_full(run: Run) -> None:
    raw = run.folder / "results/raw"
    raw.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(raw)], capture_output=True).returncode:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        run.start(TARGET, *VARY)
        began = time.monotonic()
        assert run.process is not None and run.process.wait(PATIENCE_S) == 1, run.output()
        assert "no space left" in messages(run).lower() and not run.cells()
    finally:
        subprocess.run(["umount", str(raw)], check=True)
    ended(run, "the shared disk is full", began, PATIENCE_S)


def test_the_head_is_killed_and_started_again(run: Run) -> None:
    """Its jobs go on: while they are there a new run is refused, and what they have measured is kept."""
    run.start(TARGET, *VARY)
    until(lambda: measuring(run), PATIENCE_S, "a cell")
    assert run.process is not None
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait(10)
    ids = [job["id"] for job in queue()]
    assert len(ids) == 2
    done = run.run("slurm", TARGET, *VARY)
    said = re.search(
        r"an earlier run in this folder was killed, and \d of its jobs are still in SLURM's queue .*", done.stdout + done.stderr
    )
    assert done.returncode == 1 and said, (done.stdout + done.stderr)[-3000:]
    assert [job["id"] for job in queue()] == ids or len(queue()) < 2
    until(lambda: not queue(), PATIENCE_S, "the end of the jobs")
    kept = digests(run)
    assert run.cells() == CELLS, "the jobs ended well without their head"
    done = run.run("slurm", TARGET, *VARY)
    then = done.stdout + done.stderr
    assert done.returncode == 0 and "its lock has been removed" in then, then[-3000:]
    assert "has been submitted" not in then and digests(run) == kept, "nothing is measured twice"
    assert not run.left() and not living(run)
    fault_table.record(
        SECTION,
        "SIGKILL to the head in mid-cell; started again",
        said[0],
        "its jobs, which go on",
        "once they have ended: measures 0 of 2 cells",
    )


def test_a_look_at_a_folder_whose_run_is_alive_changes_nothing(run: Run) -> None:
    run.start(TARGET, *VARY)
    until(lambda: measuring(run), PATIENCE_S, "a cell")
    done = run.run("slurm", TARGET, *VARY, "-n")
    assert "killed" not in done.stdout + done.stderr and list((run.folder / ".snakemake/locks").iterdir())
    assert run.process is not None and run.process.wait(PATIENCE_S) == 0, run.output()[-3000:]
    assert not (run.folder / ".snakemake/coldprefix.submitted").exists()
