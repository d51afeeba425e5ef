"""Misses on llama.cpp's two interfaces and llama-bench, interleaved. Runs in llama.cpp's environment.

python time_peers.py --jobs JOB... --gguf FILE --lengths JSON... --rounds 10 --out rounds.parquet --log FILE
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.instrument import peers
from coldprefix.study.config import Lengths
from coldprefix.errors import run_main
from coldprefix.process.locks import exclusive
from coldprefix.files import text_of
from coldprefix.study.plan import Job
from coldprefix.data.tables import write_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--jobs", nargs="+", required=True, help="a job (coldprefix.job.Job) of each interface as JSON, or a file that holds it"
    )
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--lengths", nargs="+", required=True, help="of the misses, as JSON (coldprefix.config.Lengths)")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True, help="of the engines")
    arguments = parser.parse_args()
    jobs = [Job.model_validate_json(text_of(job)) for job in arguments.jobs]
    lengths = [Lengths.model_validate_json(text) for text in arguments.lengths]
    with exclusive("llama-bench"):
        found = peers.rounds(jobs, arguments.gguf, arguments.log, lengths, arguments.rounds)
    write_table(found, arguments.out)


if __name__ == "__main__":
    run_main(main)
