"""Two hundred cells with faults at random, until all are there; then nothing may be wrong, and nothing left."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import fault_table
import polars as pl
import psutil
import pytest
import tampering
from fault_run import CONFIG, SOON, TRIALS, Run, belonging, cmdline, name_of
from tampering import Proxy

from coldprefix.data.parquet import read_requests, write_parquet
from coldprefix.data.raw import as_frame

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(3600)]

CONFIGURATIONS = [f"A{32 + i}_B{40 + i}" for i in range(50)]
CELLS = [f"{phase}/{c}/{s}" for phase in ("phase3a", "phase3b") for c in CONFIGURATIONS for s in ("hit", "miss")]
SEED = 7
# A descriptor a cell would show: a run measures dozens.
MORE_DESCRIPTORS = 8


def test_two_hundred_cells_with_random_faults(tmp_path: Path) -> None:
    values = CONFIG.replace("[phase3a]", "[phase3a, phase3b]").replace(f"trials: {TRIALS}", "trials: 4")
    values = values.replace("[A64_B64]", f"[{', '.join(CONFIGURATIONS)}]").replace("stream_tokens: 30", "stream_tokens: 8")
    (tmp_path / "my.yaml").write_text(values)
    soak = Run(tmp_path)
    chance = random.Random(SEED)
    injected: Counter[str] = Counter()
    runs = 0
    began = time.monotonic()
    hashes: dict[str, bytes] = {}
    while True:
        runs += 1
        soak.start(*SOON)
        assert soak.process is not None
        descriptors: list[int] = []
        while soak.process.poll() is None:
            due = time.monotonic() + chance.uniform(2, 20)
            while soak.process.poll() is None and time.monotonic() < due:
                time.sleep(0.1)
                try:
                    descriptors.append(psutil.Process(soak.process.pid).num_fds())
                except psutil.Error:
                    pass
            if soak.process.poll() is None:
                injected[inject(chance, soak)] += 1
        for proxy in soak.proxies:
            proxy.close()
        soak.proxies.clear()
        deadline = time.monotonic() + 20
        while belonging(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not belonging(tmp_path), "a run has ended and its processes have not"
        half = len(descriptors) // 2
        if half > 20:
            assert max(descriptors[half:]) <= max(descriptors[:half]) + MORE_DESCRIPTORS, "the workflow's descriptors grow"
        # What is finished stays as it is, whatever happens later.
        for cell in CELLS:
            files = [tmp_path / "results/raw" / cell / name for name in ("requests.parquet", "provenance.json")]
            if files[1].exists():
                assert (
                    hashes.setdefault(cell, files[0].read_bytes() + files[1].read_bytes()) == files[0].read_bytes() + files[1].read_bytes()
                )
        if soak.process.returncode == 0:
            break
        assert runs < 300, soak.output()[-3000:]
    assert len(CELLS) == 200 == len(hashes)
    for cell in CELLS:
        check(tmp_path / "results/raw" / cell / "requests.parquet", cell)
    assert pl.scan_parquet(tmp_path / "results/requests.parquet").select(pl.len()).collect().item() == 200 * 4 * 4
    assert not soak.left()
    assert not list((tmp_path / ".snakemake/locks").glob("*")) and sum(injected.values()) >= 20
    minutes = (time.monotonic() - began) / 60
    faults = ", ".join(f"{name} {times}" for name, times in sorted(injected.items()))
    line = f"{len(CELLS)} cells of the tiny model on llama.cpp, {sum(injected.values())} faults in {runs} runs, {minutes:.1f} minutes (seed {SEED})."
    print(line, faults)
    fault_table.SOAK += [
        line,
        "",
        f"Faults: {faults}.",
        "",
        "In the end all results were there; every count of rows and of reused tokens was right; no finished cell was ever written again; no "
        "process, socket, shared memory, temporary file or lock was left; the workflow's open descriptors did not grow.",
    ]


def check(path: Path, cell: str) -> None:
    """All rows are there, and each one that is not rejected reused exactly what its state says."""
    frame = read_requests(path)
    a, b = (int(n) for n in re.findall(r"\d+", cell.split("/")[1]))
    assert frame.height == 4 * 4, cell
    good = frame.filter(pl.col("rejection").is_null())
    meant = a + b if cell.endswith("hit") else 0
    assert set(good.filter(pl.col("step").is_in(["query", "stream"]))["cached_tokens"]) <= {meant}, cell
    assert set(good.filter(pl.col("step") == "warmup")["cached_tokens"]) <= {0}, cell


def inject(chance: random.Random, soak: Run) -> str:
    """One fault to one process of the run, or to the answers of its server; returns its name."""
    assert soak.process is not None
    processes = belonging(soak.folder)
    servers = [p for p in processes if name_of(p) == "llama-server"]
    jobs = [p for p in processes if "measure.py" in " ".join(cmdline(p)[:3])]
    choices = ["snakemake SIGKILL", "snakemake SIGTERM", "group SIGINT"]
    choices += ["server SIGKILL", "server SIGSEGV", "server SIGSTOP"] * 2 if servers else []
    choices += [f"answers: {mode}" for mode in tampering.SPOILT if mode != "no usage"] if servers else []
    choices += ["job SIGKILL", "job SIGTERM"] * 2 if jobs else []
    fault = chance.choice(choices)
    try:
        if fault.startswith("answers: "):
            for path in tampering.sockets(soak.tmp):
                soak.proxies.append(Proxy(path, chance.randrange(8), spoil=tampering.SPOILT[fault.removeprefix("answers: ")]))
                return fault
            return "too late"
        who, how = fault.split()
        if who == "group":
            os.killpg(soak.process.pid, signal.SIGINT)
        else:
            {"snakemake": [psutil.Process(soak.process.pid)], "server": servers, "job": jobs}[who][0].send_signal(signal.Signals[how])
    except (psutil.NoSuchProcess, OSError):
        return "too late"
    return fault


def test_the_soak_s_check_can_fail(tmp_path: Path) -> None:
    """A trial with a wrong count that nobody rejected must be found."""
    from raw_data import one_trial

    rows = [row | {"trial": trial} for trial in range(4) for row in one_trial()]
    meant = {"warmup": 0, "query": 72, "rewarm": 71, "stream": 72}
    right = [row | {"cached_tokens": meant[row["step"]]} for row in rows]
    write_parquet(as_frame(right), tmp_path / "right.parquet")
    check(tmp_path / "right.parquet", "phase3a/A32_B40/hit")
    right[7]["cached_tokens"] = 7
    write_parquet(as_frame(right), tmp_path / "wrong.parquet")
    with pytest.raises(AssertionError):
        check(tmp_path / "wrong.parquet", "phase3a/A32_B40/hit")
