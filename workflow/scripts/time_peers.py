"""Misses on llama.cpp's two interfaces and llama-bench, interleaved. Runs in llama.cpp's environment.

python time_peers.py --plan PLAN --phase phase3a [--also phase3b] --rounds 10 --out rounds.parquet --log FILE
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.data.parquet import write_table
from coldprefix.engines.contract import weights_of
from coldprefix.files import read_json
from coldprefix.instrument import peers
from coldprefix.job import Lengths, read_job
from coldprefix.process.locks import exclusive
from coldprefix.process.program import run_main, workflow_pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--plan", type=Path, required=True, help="results/plan.json, which snakemake writes; misses have the lengths of its configurations"
    )
    parser.add_argument("--phase", required=True, help="an interface of llama.cpp")
    parser.add_argument("--also", nargs="*", default=[], help="its other interfaces")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True, help="of the engines")
    arguments = parser.parse_args()
    jobs = [read_job(arguments.plan, "preflight", phase) for phase in (arguments.phase, *arguments.also)]
    lengths = [Lengths.model_validate(entry) for entry in read_json(arguments.plan)["lengths"].values()]
    gguf = weights_of(arguments.models, jobs[0].model.name, "gguf")
    with exclusive("llama-bench", workflow_pid()):
        found = peers.rounds(jobs, gguf, arguments.log, lengths, arguments.rounds)
    write_table(found, arguments.out)


if __name__ == "__main__":
    run_main(main)
