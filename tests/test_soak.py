"""Two hundred cells with faults at random, until all are there; then nothing may be wrong, and nothing left."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import polars as pl
import psutil
import pytest
from test_faults import CONFIG, belonging, cmdline, command, name_of

from coldprefix import tables

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(3600)]

CONFIGURATIONS = [f"A{32 + i}_B{40 + i}" for i in range(50)]
TRIALS = 4
SEED = 7


def test_two_hundred_cells_with_random_faults(tmp_path: Path) -> None:
    values = CONFIG.replace("[phase3a]", "[phase3a, phase3b]").replace("trials: 30", f"trials: {TRIALS}")
    values = values.replace("[A64_B64, A32_B96]", f"[{', '.join(CONFIGURATIONS)}]").replace("stream_tokens: 30", "stream_tokens: 8")
    (tmp_path / "my.yaml").write_text(values)
    before = set(Path(tempfile.gettempdir()).glob("coldprefix-*/"))
    chance = random.Random(SEED)
    injected: dict[str, int] = {}
    runs = 0
    began = time.monotonic()
    while True:
        runs += 1
        with open(tmp_path / f"output-{runs}.txt", "wb") as output:
            run = subprocess.Popen(
                command(tmp_path, "results/summary.txt"), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        while run.poll() is None:
            due = time.monotonic() + chance.uniform(3, 25)
            while run.poll() is None and time.monotonic() < due:
                time.sleep(0.05)
            if run.poll() is None:
                fault = inject(chance, run, tmp_path)
                injected[fault] = injected.get(fault, 0) + 1
        deadline = time.monotonic() + 20
        while belonging(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not belonging(tmp_path), "a run has ended and its processes have not"
        if run.returncode == 0:
            break
        assert runs < 300, (tmp_path / f"output-{runs}.txt").read_text()[-3000:]
    cells = [f"{phase}/{c}/{s}" for phase in ("phase3a", "phase3b") for c in CONFIGURATIONS for s in ("hit", "miss")]
    assert len(cells) == 200
    for cell in cells:
        frame = tables.read_requests(tmp_path / "results/raw" / cell / "requests.parquet")
        a, b = (int(n) for n in re.findall(r"\d+", cell.split("/")[1]))
        assert frame.height == 4 * TRIALS, cell
        good = frame.filter(pl.col("rejection").is_null())
        meant = a + b if cell.endswith("hit") else 0
        assert set(good.filter(pl.col("step").is_in(["query", "stream"]))["cached_tokens"]) <= {meant}, cell
        assert set(good.filter(pl.col("step") == "warmup")["cached_tokens"]) <= {0}, cell
    assert pl.scan_parquet(tmp_path / "results/requests.parquet").select(pl.len()).collect().item() == 200 * 4 * TRIALS
    assert not [p for p in tmp_path.rglob("*") if ".part" in p.name and ".snakemake" not in p.parts]
    assert set(Path(tempfile.gettempdir()).glob("coldprefix-*/")) == before, "a server's folder is left"
    assert not list((tmp_path / ".snakemake/locks").glob("*")) and sum(injected.values()) >= 5
    line = (
        f"{len(cells)} cells, {sum(injected.values())} faults in {runs} runs, {(time.monotonic() - began) / 60:.1f} minutes: "
        + ", ".join(f"{name} {times}" for name, times in sorted(injected.items()))
    )
    print(line)
    target = os.environ.get("COLDPREFIX_FAULT_TABLE")
    if target:
        with open(target, "a") as page:
            page.write(
                f"\n## Soak\n\n{line}. All results present, every reused count and row count right, no process, socket, file or lock left.\n"
            )


def inject(chance: random.Random, run: subprocess.Popen[bytes], folder: Path) -> str:
    """One fault to one process of the run; returns its name."""
    processes = belonging(folder)
    servers = [p for p in processes if name_of(p) == "llama-server"]
    jobs = [p for p in processes if "measure.py" in " ".join(cmdline(p)[:3])]
    choices = ["snakemake SIGKILL", "snakemake SIGTERM", "group SIGINT"]
    choices += ["server SIGKILL", "server SIGSEGV", "server SIGSTOP"] * 2 if servers else []
    choices += ["job SIGKILL", "job SIGTERM"] if jobs else []
    fault = chance.choice(choices)
    who, how = fault.split()
    try:
        if who == "group":
            os.killpg(run.pid, signal.SIGINT)
        else:
            {"snakemake": [psutil.Process(run.pid)], "server": servers, "job": jobs}[who][0].send_signal(signal.Signals[how])
    except (psutil.NoSuchProcess, ProcessLookupError):
        return "too late"
    return fault
