"""Test the claims of claims.yaml on the data, each against its threshold.

python check_claims.py --claims claims.yaml --trials results/trials.parquet --provenance FILE [--converter FILE]
    --out results/claims.parquet --markdown results/claims.md

Writes the table and a page to read, and prints the verdicts. A refuted claim is a result: the exit code is 0.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.claims import listed, page
from coldprefix.claims.table import check_all
from coldprefix.data.parquet import read_table, write_table
from coldprefix.data.raw import read_records
from coldprefix.data.tables import TRIALS
from coldprefix.files import write_text
from coldprefix.process.program import run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=Path, required=True)
    parser.add_argument("--trials", type=Path, required=True)
    parser.add_argument("--provenance", type=Path, required=True, help="records of all cells")
    parser.add_argument("--converter", type=Path, help="what llama.cpp's converter said; may be missing")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--markdown", type=Path, required=True)
    arguments = parser.parse_args()
    claims = listed.load(arguments.claims)
    trials = read_table(arguments.trials, TRIALS)
    provenance = read_records(arguments.provenance)
    table = check_all(claims, trials, provenance, listed.read_converter(arguments.converter))
    write_table(table, arguments.out)
    write_text(arguments.markdown, page.as_markdown(table))
    print(f"\n{page.as_text(table)}", flush=True)


if __name__ == "__main__":
    run_main(main)
