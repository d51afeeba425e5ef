"""Measure one cell. Runs in the engine's environment (in_environment.py).

    python measure.py --plan PLAN --cell CELL [--digest DIGEST] --log FILE

Starts the engine, runs the protocol, stops it, writes one row per request and one record of provenance to results/raw/CELL. If too many
trials are rejected, the rows go to requests.rejected.parquet, nothing is written under the final names, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.engines.contract import load, weights_of
from coldprefix.errors import ColdprefixError, naming
from coldprefix.job import read_job
from coldprefix.measure.cell import measure_cell
from coldprefix.process.program import run_main, workflow_pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="results/plan.json, which snakemake writes")
    parser.add_argument("--cell", required=True, help="phase/configuration/state, in a sweep phase/variant/configuration/state")
    parser.add_argument("--digest", help="of the job that is asked for: the plan must hold that one")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--raw", type=Path, default=Path("results/raw"), help="folder of the cells' folders")
    parser.add_argument("--log", type=Path, required=True, help="the engine's own output")
    arguments = parser.parse_args()
    job = read_job(arguments.plan, "cells", arguments.cell)
    if arguments.digest and arguments.digest != job.digest:
        raise ColdprefixError(f"{arguments.plan} holds another job for {job.cell} than this run asks for; run snakemake again")
    weights = weights_of(arguments.models, job.model.name, load(job.engine).weights)
    with naming(job.cell, arguments.log):
        measure_cell(job, weights, arguments.raw / job.cell, arguments.log, workflow_pid())


if __name__ == "__main__":
    run_main(main)
