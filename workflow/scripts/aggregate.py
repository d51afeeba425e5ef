"""Put the cells together: requests, trials and summary in parquet, and the medians as a table.

    python aggregate.py --raw results/raw --cells phase3a/A512_B256/hit ... --out results [--requests]

Writes trials.parquet, summary.parquet, provenance.json, summary.txt and, with --requests, requests.parquet; prints the table.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.analysis.aggregate import aggregate
from coldprefix.errors import run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--cells", nargs="+", required=True, help="phase/configuration/state")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--requests", action="store_true", help="also write all requests in one file")
    arguments = parser.parse_args()
    text = aggregate(arguments.raw, arguments.cells, arguments.out, arguments.requests)
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    run_main(main)
