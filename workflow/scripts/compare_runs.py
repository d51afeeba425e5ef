"""Set two runs side by side: ratios with intervals per cell, a table, a figure.

python compare_runs.py --one RESULTS --other RESULTS [--vary host engine settings code protocol] [--names A B] --out results/compare

Refuses, with the fields and both values, if more differs between the runs than --vary declares.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.analysis import compare
from coldprefix.data.parquet import write_table
from coldprefix.figures import comparison, style
from coldprefix.files import read_json, write_text
from coldprefix.process.program import run_main
from coldprefix.study.config import Figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", type=Path, required=True)
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--vary", nargs="*", default=[], choices=list(compare.AXES), help="what may differ between the runs")
    parser.add_argument("--names", nargs=2, default=["one", "other"])
    parser.add_argument("--plan", type=Path, help="results/plan.json of the run that asks: how the figure looks")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    look = read_json(arguments.plan)["figures"] if arguments.plan else {"column_in": 3.33, "text_in": 7.0, "font_pt": 8, "png_dpi": 300}
    settings = Figures.model_validate(look)
    one, other = compare.read_run(arguments.one), compare.read_run(arguments.other)
    differing = compare.check(one, other, arguments.vary)
    rows = compare.compare(one, other)
    write_table(rows, arguments.out / "comparison.parquet")
    text = compare.table(rows, arguments.names, differing)
    write_text(arguments.out / "comparison.txt", text)
    drawing = comparison.draw(rows, arguments.names, differing, settings)
    style.save(drawing, [arguments.out / f"comparison.{format}" for format in ("pdf", "png", "csv")], settings)
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    run_main(main)
