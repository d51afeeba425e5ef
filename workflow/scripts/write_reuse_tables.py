"""Write what a run's raw files say of models, edits and backends as two tables.

python write_reuse_tables.py --raw results/raw [--experiments architectures,edits] --out PAGE.md
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.files import write_text
from coldprefix.process.program import run_main
from coldprefix.report import reuse_table
from coldprefix.setup.building import ROOT
from coldprefix.study import checks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, default=Path("results/raw"))
    parser.add_argument("--experiments", default="architectures")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    cells = reuse_table.read(arguments.raw, arguments.experiments.split(","))
    write_text(arguments.out, reuse_table.page(cells, checks.load(ROOT / "config.yaml")))


if __name__ == "__main__":
    run_main(main)
