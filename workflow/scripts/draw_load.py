"""What one client's miss costs its neighbours: a table and figure 13.

python draw_load.py results/load/phase3a.parquet ... --plan PLAN --out results/load/load.parquet --figure figures/fig13_load.{pdf,png,csv,txt}
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.data.parquet import read_table, write_table
from coldprefix.figures import style
from coldprefix.files import read_json
from coldprefix.load.figure import draw
from coldprefix.load.table import table
from coldprefix.process.program import run_main
from coldprefix.study.config import Figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="+", help="of measure_load.py")
    parser.add_argument("--plan", type=Path, required=True, help="results/plan.json, which snakemake writes: how figures look")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    rows = pl.concat([read_table(path) for path in arguments.rows])
    records = [read_json(path.with_suffix(".json")) for path in arguments.rows]
    settings = Figures.model_validate(read_json(arguments.plan)["figures"])
    found = table(rows)
    write_table(found, arguments.out)
    style.save(draw(found, rows, records, settings), arguments.figure, settings)


if __name__ == "__main__":
    run_main(main)
