"""Put the raw data of several machines together, with the machine as a block in the statistics (docs/cluster.md).

    python merge.py --results a/results b/results --out results/merged

Writes trials.parquet, summary.parquet (of all machines together, and of each), provenance.json and summary.txt; prints the table. Refuses cells
of different schema versions or jobs, and what one machine could not compare with itself.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.analysis.merge import merge
from coldprefix.process.program import run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, nargs="+", required=True, help="folders called results, one of each run")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    print(f"\n{merge(arguments.results, arguments.out)}", flush=True)


if __name__ == "__main__":
    run_main(main)
