"""Put the cells together: requests, trials and summary in parquet, and the medians as a table.

    python aggregate.py --plan results/plan.json --out results --requests
    python aggregate.py --plan results/plan.json --experiment scaling --out results/experiments/scaling

Refuses cells that were measured by another job than the plan holds now.

Writes trials.parquet, summary.parquet, provenance.json, summary.txt and, with --requests, requests.parquet; prints the table.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.analysis.aggregate import aggregate
from coldprefix.files import read_json
from coldprefix.process.program import run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="results/plan.json, which snakemake writes")
    parser.add_argument("--experiment", help="main, or a sweep's name; all cells of the plan if not named")
    parser.add_argument("--raw", type=Path, default=Path("results/raw"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--requests", action="store_true", help="also write all requests in one file")
    arguments = parser.parse_args()
    plan = read_json(arguments.plan)
    cells = plan["experiments"][arguments.experiment] if arguments.experiment else list(plan["cells"])
    text = aggregate(arguments.raw, {cell: plan["cells"][cell] for cell in cells}, arguments.out, arguments.requests, plan.get("vary", []))
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    run_main(main)
