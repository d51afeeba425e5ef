"""Settings that must agree between the two interfaces of an engine: compare the preflight records.

python compare_settings.py --out AGREED.json phase1.json phase2.json ...
"""

from __future__ import annotations

import argparse
import sys
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.analysis.agreement import disagreements
from coldprefix.files import read_json, write_json
from coldprefix.process.program import run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("records", type=Path, nargs="+")
    arguments = parser.parse_args()
    records = [read_json(path) for path in arguments.records]
    for one, other in combinations(records, 2):
        disagreements(one, other)
    write_json(arguments.out, {path.stem: record["in_force"] for path, record in zip(arguments.records, records, strict=True)})


if __name__ == "__main__":
    run_main(main)
