"""Set what each cell took beside the floor of its prefill, and draw it.

python floor.py --plan PLAN --trials FILE... --provenance FILE... --card card.json --out results/floor/floor.{pdf,png,csv,txt}

card.json is what measure_card.py found on the card that measured the cells. The rows (.csv) hold every cell, hits and edits, too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.data import tables
from coldprefix.data.parquet import read_tables
from coldprefix.data.raw import read_records
from coldprefix.figures import floor, style
from coldprefix.files import read_json
from coldprefix.process.program import run_main
from coldprefix.study.config import Figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="results/plan.json, which snakemake writes: how figures look")
    parser.add_argument("--trials", type=Path, nargs="+", required=True)
    parser.add_argument("--provenance", type=Path, nargs="+", required=True)
    parser.add_argument("--card", type=Path, required=True)
    parser.add_argument("--out", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    settings = Figures.model_validate(read_json(arguments.plan)["figures"])
    trials = read_tables(arguments.trials, tables.TRIALS)
    records = [record for path in arguments.provenance for record in read_records(path)]
    card = read_json(arguments.card, "Make it with workflow/scripts/measure_card.py on the machine that measured the cells.")
    style.save(floor.draw(style.Measured(trials, trials.clear(), records), card, settings), arguments.out, settings)


if __name__ == "__main__":
    run_main(main)
