"""Ratios of the harness's TTFT to what the engines' own instruments say.

python compare_peers.py [--rounds rounds.parquet] [--trials trials.parquet] --out results/peers
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import polars as pl

from coldprefix.data import tables
from coldprefix.data.parquet import read_table, read_tables, write_table
from coldprefix.files import write_text
from coldprefix.instrument import peers
from coldprefix.process.program import run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=Path, help="misses and llama-bench, interleaved")
    parser.add_argument("--trials", type=Path, help="of the main experiment, for vLLM's own times")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    pairs = []
    if arguments.rounds:
        pairs.append(peers.pairs_of_rounds(read_table(arguments.rounds)))
    if arguments.trials:
        pairs.append(peers.pairs_of_trials(read_tables([arguments.trials], tables.TRIALS)))
    summary = peers.summarise(pl.concat(pairs))
    write_table(summary, arguments.out / "peers.parquet")
    text = peers.table(summary)
    write_text(arguments.out / "peers.txt", text)
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    run_main(main)
