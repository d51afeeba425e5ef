"""Run a program in the environment of an engine, after seeing that what it needs is still there, and making again what is not.

    python in_environment.py measure --plan PLAN --cell CELL ...
    python in_environment.py preflight --plan PLAN --phase PHASE ...

All arguments go to that program of this folder, which replaces this one. Environments, builds and models are not inputs of measuring jobs:
deleting one of them must not measure every cell again. So each job looks here first, which takes no time when nothing is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.engines import contract
from coldprefix.errors import ColdprefixError
from coldprefix.files import read_json
from coldprefix.job import read_job
from coldprefix.models.prepare import ensure_weights
from coldprefix.process.program import run_main
from coldprefix.setup.environments import ensure_environment
from coldprefix.study import registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="measure, preflight, time_peers, replay_trace or measure_load")
    parser.add_argument("--plan", type=Path, required=True, help="results/plan.json, which snakemake writes")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--cell", help="its job is what the program needs")
    asked.add_argument("--phase", help="its preflight is")
    parser.add_argument("--models", type=Path, default=Path("models"))
    arguments, _ = parser.parse_known_args()
    job = read_job(arguments.plan, "cells" if arguments.cell else "preflight", arguments.cell or arguments.phase)
    engine = contract.load(job.engine)
    entry = read_json(arguments.plan)["models"][job.model.name]
    known = Path("results/setup/downloads") / f"{job.model.name}.json"
    python = ensure_environment(job.environment) / "bin" / "python"
    engine.build(job.accelerator)
    model = registry.source(entry["source"]).model_validate(entry)
    if model.identity != job.model.identity:
        raise ColdprefixError(f"the model {job.model.name} has changed since this run began; run snakemake again")
    if engine.weights == "served":
        run(arguments.program, python)
    earlier = read_json(known) if known.exists() else None
    ensure_weights(job.model.name, model, arguments.models, engine.weights, earlier, job.accelerator)
    run(arguments.program, python)


def run(program: str, python: Path) -> NoReturn:
    """Become a program of this folder, with the arguments of this one."""
    os.execv(python, [str(python), str(Path(__file__).with_name(f"{program}.py")), *sys.argv[2:]])  # noqa: S606  (a program of ours, no shell)


if __name__ == "__main__":
    run_main(main)
