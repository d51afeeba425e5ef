"""Do the values of random weights change times? The stand-in as it is, with its matrices times 8, and with all of them zero.

    cd FOLDER    # of a finished run of a stand-in, whose plan, models and environments it uses; nothing else may run
    CHECKOUT/.venv/bin/python CHECKOUT/benchmarks/weights.py --cell phase3b/A256_B512/miss [--rounds 6]

A round starts an engine process for each kind of weights, in random order, and measures the cell's states in it. Prints for each state
the time to first token, and the ratio over the weights as they are: its mean over rounds, with a 95 % interval (Student's t of the
log ratios). Engines in process only, so that each process is one of its own.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
import polars as pl
from gguf import GGUFReader
from safetensors.numpy import load_file, save_file

from coldprefix.analysis.statistics import student
from coldprefix.engines.contract import load, weights_of
from coldprefix.job import Job, read_job
from coldprefix.measure.child import ROWS
from coldprefix.process.program import run_main
from coldprefix.setup.building import ROOT
from coldprefix.setup.environments import ensure_environment

AS_MADE = "as made"
FACTORS = {AS_MADE: 1.0, "times 8": 8.0, "zero": 0.0}
MEASURE = str(ROOT / "workflow" / "scripts" / "measure.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", required=True)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--plan", type=Path, default=Path("results/plan.json"))
    parser.add_argument("--models", type=Path, default=Path("models"))
    arguments = parser.parse_args()
    job = read_job(arguments.plan, "cells", arguments.cell)
    order = random.Random(0)
    times: dict[str, list[dict[str, float]]] = {name: [] for name in FACTORS}
    with tempfile.TemporaryDirectory(prefix="coldprefix-weights-") as temporary:
        folders = {
            name: scaled(job, arguments.models, Path(temporary) / name.replace(" ", "-"), factor) for name, factor in FACTORS.items()
        }
        for number in range(arguments.rounds):
            for name in order.sample(list(FACTORS), len(FACTORS)):
                times[name].append(measured(job, arguments.plan, folders[name], number, Path(temporary)))
                print(f"round {number + 1}: {name}: {times[name][-1]}", file=sys.stderr, flush=True)
    print(f"{job.cell}, {arguments.rounds} processes each\n{'state':<8}{'weights':<10}{'TTFT ms':>10}{'ratio':>8}{'95 % interval':>18}")
    for state in times[AS_MADE][0]:
        for name, found in times.items():
            ratio = student([own[state] / base[state] for own, base in zip(found, times[AS_MADE], strict=True)], None, "log")
            interval = "" if name == AS_MADE or ratio.low is None else f"{ratio.low:.3f} to {ratio.high:.3f}"
            print(f"{state:<8}{name:<10}{np.mean([own[state] for own in found]):>10.1f}{ratio.value:>8.3f}{interval:>18}")


def scaled(job: Job, models: Path, folder: Path, factor: float) -> Path:
    """A models/ with this model, its matrices times ``factor``; vectors (norms, biases) stay."""
    folder.mkdir()
    shutil.copytree(models / job.model.name, folder / job.model.name)
    kind = load(job.engine).weights
    if kind == "gguf":
        path = folder / weights_of(models, job.model.name, kind).name
        shutil.copyfile(weights_of(models, job.model.name, kind), path)
        for tensor in GGUFReader(path, "r+").tensors:
            if tensor.data.ndim == 2:
                tensor.data[:] = tensor.data * tensor.data.dtype.type(factor)
        return folder
    for path in (folder / job.model.name).glob("*.safetensors"):
        tensors = {name: value * value.dtype.type(factor) if value.ndim == 2 else value for name, value in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    return folder


def measured(job: Job, plan: Path, models: Path, number: int, temporary: Path) -> dict[str, float]:
    """Median time to first token in ms by state, of one engine process."""
    python = ensure_environment(job.environment) / "bin" / "python"
    with tempfile.TemporaryDirectory(dir=temporary) as out:
        command = [str(python), MEASURE, "--plan", str(plan), "--cell", job.cell, "--models", str(models), "--log", f"{out}/engine.log"]
        # Not process 0, whose answers are checked: zeros have none.
        subprocess.run([*command, "--process", str(number + 1), "--hand-over", out], check=True, stderr=subprocess.DEVNULL)
        rows = pl.read_parquet(Path(out) / ROWS).filter(~pl.col("burn_in"), pl.col("rejection").is_null(), pl.col("step") == "stream")
        return dict(rows.group_by("state", maintain_order=True).agg(pl.col("ttft_ms").median()).sort("state").iter_rows())


if __name__ == "__main__":
    run_main(main)
