"""Measure one cell. Runs in the engine's environment (in_environment.py).

    python measure.py --plan PLAN --cell CELL [--digest DIGEST] --log FILE

Starts the cell's engine processes one after the other, runs the protocol, stops them, writes one row per request and one record of
provenance to results/raw/CELL. If too many trials are rejected, the rows go to requests.rejected.parquet, nothing is written under the final
names, and the exit code is 1. An engine that lives inside this program gets a process of its own each time: this program once more, with
--process.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.engines.contract import load, weights_of
from coldprefix.errors import ColdprefixError, naming
from coldprefix.job import read_job
from coldprefix.measure import child
from coldprefix.measure.cell import Measured, measure_cell, measure_process
from coldprefix.process.program import run_main, workflow_pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="results/plan.json, which snakemake writes")
    parser.add_argument("--cell", required=True, help="phase/configuration/state, in a sweep phase/variant/configuration/state")
    parser.add_argument("--digest", help="of the job that is asked for: the plan must hold that one")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--raw", type=Path, default=Path("results/raw"), help="folder of the cells' folders")
    parser.add_argument("--log", type=Path, required=True, help="the engine's own output")
    parser.add_argument("--process", type=int, help="measure this one of its engine's processes only, and")
    parser.add_argument("--first-order", type=int, default=0, help="number its rows from here,")
    parser.add_argument("--hand-over", type=Path, help="write what was measured into this folder")
    arguments = parser.parse_args()
    job = read_job(arguments.plan, "cells", arguments.cell)
    if arguments.digest and arguments.digest != job.digest:
        raise ColdprefixError(f"{arguments.plan} holds another job for {job.cell} than this run asks for; run snakemake again")
    weights = weights_of(arguments.models, job.model.name, load(job.engine).weights)
    owner = workflow_pid()
    log = arguments.log

    def here(process: int, first_order: int) -> Measured:
        return measure_process(job, weights, log, owner, process, first_order)

    def in_child(process: int, first_order: int) -> Measured:
        return child.measured_by_child([*sys.argv, "--process", str(process), "--first-order", str(first_order)], log)

    with naming(job.cell, log):
        if arguments.hand_over:
            with child.quiet():
                child.hand_over(arguments.hand_over, *here(arguments.process, arguments.first_order))
            return
        measure_cell(job, here if job.interface == "http" else in_child, arguments.raw / job.cell, log, owner)


if __name__ == "__main__":
    run_main(main)
