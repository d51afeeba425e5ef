"""Aggregation of generated requests by the real program: seconds, peak memory, bytes on disk.

.venv/bin/python benchmarks/scale.py [--rows 10000000] [--cells 100] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import polars as pl

from coldprefix.data import tables
from coldprefix.data.raw import write_cell
from coldprefix.job import Cell

TOKENS = 8  # of each streaming query
STEPS = ("warmup", "query", "rewarm", "stream")


def cells_of(number: int) -> list[Cell]:
    """So many cells: variants of a sweep, each for both states and both interfaces of llama.cpp."""
    return [Cell(("phase3a", "phase3b")[i // 2 % 2], f"scale/v{i // 4}", "A512_B256", ("hit", "miss")[i % 2]) for i in range(number)]


def requests_of(cell: Cell, rows: int, seed: int) -> pl.DataFrame:
    """A raw table (tables.REQUESTS) of so many rows, four to a trial. The prompts are the same for both interfaces."""
    index = pl.int_range(rows, dtype=pl.UInt64)
    step = pl.lit(pl.Series(STEPS)).gather(index % 4)
    noise = (index.hash(seed) % 1000).cast(pl.Float64) / 1e3
    ttft = (20.0 if cell.state == "hit" else 90.0) + noise
    reused = 512 if cell.state == "hit" else 0
    values: dict[str, Any] = {
        "phase": pl.lit(cell.phase),
        "engine": pl.lit("llamacpp"),
        "interface": pl.lit("http" if cell.phase == "phase3a" else "python"),
        "sweep": pl.lit(cell.sweep),
        "variant": pl.lit(cell.variant),
        "configuration": pl.lit(cell.configuration),
        "state": pl.lit(cell.state),
        "model": pl.lit("gpt2-standin"),
        "job": pl.lit(cell.path),
        "own": True,
        "process": (index // 4 % 3),
        "engine_process": pl.lit(f"{cell.path} ") + (index // 4 % 3).cast(pl.String),
        "trial": index // 4,
        "burn_in": index < 8,
        "order": index,
        "step": step,
        "request_form": pl.lit("tokens"),
        "content": pl.lit("fresh"),
        "prompt_tokens": 768,
        "prompt_hash": index.hash(0).cast(pl.String).str.zfill(20).str.tail(16),
        "intended_cached_tokens": reused,
        "cached_tokens": reused,
        "evaluated_tokens": 768 - reused,
        "generated_tokens": pl.when(step == "stream").then(TOKENS).otherwise(1),
        "connect_ms": pl.lit(0.2) if cell.phase == "phase3a" else None,
        "ttft_ms": pl.when(step == "stream").then(ttft),
        "total_ms": pl.when(step == "stream").then(ttft + 8.0 * TOKENS).otherwise(ttft),
        "token_times_ms": pl.when(step == "stream")
        .then(pl.concat_list([ttft + 8.0 * token for token in range(TOKENS)]))
        .otherwise(pl.lit([], pl.List(pl.Float64))),
        "engine_prompt_ms": pl.when(step == "stream").then(ttft - 1.0),
        "engine_ttft_ms": None,
        "rejection": None,
        "foreign_cpu": noise / 100,
        "workflow_cpu": 0.001,
        "steal_cpu": 0.0,
        "cpu_mhz": 2900.0 + noise,
        "started_at": pl.lit(datetime(2026, 1, 1, tzinfo=UTC)) + pl.duration(milliseconds=100 * index),
    }
    columns = [(value if isinstance(value, pl.Expr) else pl.lit(value)).cast(tables.REQUESTS[name][0]) for name, value in values.items()]
    return pl.select(index.alias("index")).select(expr.alias(name) for name, expr in zip(values, columns, strict=True))


def record_of(cell: Cell) -> dict[str, Any]:
    """As much of a provenance record as the aggregation reads."""
    job: dict[str, Any] = {"phase": cell.phase, "variant": cell.variant, "configuration": cell.configuration, "state": cell.state}
    job |= {"engine": "llamacpp", "interface": "http" if cell.phase == "phase3a" else "python", "code": "0" * 64}
    host = {"cpu": "generated", "usable_cpus": 2, "gpus": []}
    job |= {
        "accelerator": "cpu",
        "threads": 2,
        "model": {"name": "gpt2-standin"},
        "protocol": {"processes": 3, "trials": 8, "max_rejected": 0.2},
    }
    job |= {"kinds": [{"configuration": cell.configuration, "state": cell.state}]}
    times = {"job_s": 60.0, "wall_s": 58.0, "engine_busy_s": 50.0, "engine_start_s": [3.0], "settle_s": 1.0}
    return {"host": host, "job": job, "in_force": {"threads": 2}, "finished_at": "2026-01-01T00:00:00+00:00"} | times


def generate(folder: Path, cells: list[Cell], rows: int) -> None:
    """Raw files of all cells, one at a time, so that memory stays that of one."""
    for number, cell in enumerate(cells):
        share = rows // len(cells) + (number < rows % len(cells))
        write_cell(folder / cell.path, requests_of(cell, share, number + 1), record_of(cell))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made (default: the system's)")
    arguments = parser.parse_args()
    cells = cells_of(arguments.cells)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        raw, out = Path(temporary) / "raw", Path(temporary) / "out"
        began = time.perf_counter()
        generate(raw, cells, arguments.rows)
        generated = time.perf_counter() - began
        out.mkdir()
        plan = Path(temporary) / "plan.json"
        plan.write_text(json.dumps({"cells": {cell.path: record_of(cell)["job"] for cell in cells}, "experiments": {}}))
        command = [sys.executable, str(ROOT / "workflow/scripts/aggregate.py"), "--plan", str(plan), "--raw", str(raw), "--out", str(out)]
        command += ["--requests"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        began = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        took = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(done.stderr)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB, of the largest child; there was no other
        assert before == 0
        sizes = {name: sum(f.stat().st_size for f in folder.rglob("*.parquet")) / 2**20 for name, folder in (("raw", raw), ("out", out))}
        height = pl.scan_parquet(out / "requests.parquet").select(pl.len()).collect().item()
    print(
        f"{height:,} rows in {len(cells):,} files, {sizes['raw']:.0f} MiB (generated in {generated:.0f} s); written: {sizes['out']:.0f} MiB"
    )
    print(f"aggregate.py     {took:.1f} s, {height / took / 1e6:.2f} million rows/s, peak memory {peak / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
