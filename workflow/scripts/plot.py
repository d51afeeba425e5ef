"""Draw a figure, with the rows it shows and its caption beside it.

python plot.py fig1_invalidation --plan PLAN --trials FILE... --summary FILE... --provenance FILE... --out figures/fig1_invalidation.{pdf,png,csv,txt}
python plot.py phase3a_panels ...            the three panels of one phase
python plot.py calibration --plan PLAN --samples FILE --out figures/calibration.{pdf,png,csv,txt}
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.data import tables
from coldprefix.data.parquet import read_table, read_tables
from coldprefix.data.raw import read_records
from coldprefix.figures import calibration, style
from coldprefix.files import read_json
from coldprefix.process.program import run_main
from coldprefix.study import registry
from coldprefix.study.config import Figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=[*registry.figures(), "calibration"])
    parser.add_argument("--plan", type=Path, required=True, help="results/plan.json, which snakemake writes: how figures look")
    parser.add_argument("--trials", type=Path, nargs="+", default=[])
    parser.add_argument("--summary", type=Path, nargs="+", default=[])
    parser.add_argument("--provenance", type=Path, nargs="+", default=[])
    parser.add_argument("--samples", type=Path, help="of the calibration")
    parser.add_argument("--out", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    settings = Figures.model_validate(read_json(arguments.plan)["figures"])
    if arguments.figure == "calibration":
        style.save(calibration.draw(read_table(arguments.samples), settings), arguments.out, settings)
        return
    figure = registry.figures()[arguments.figure]
    records = [record for path in arguments.provenance for record in read_records(path)]
    if figure.phase:  # of one backend: the others' models and machine are not its
        records = [record for record in records if record["job"]["phase"] == figure.phase]
    trials, summary = read_tables(arguments.trials, tables.TRIALS), read_tables(arguments.summary, tables.SUMMARY)
    own = {"phase": figure.phase} if figure.phase else {}
    drawing = import_module(f"coldprefix.figures.{figure.module}").draw(style.Measured(trials, summary, records), settings, **own)
    style.save(drawing, arguments.out, settings)


if __name__ == "__main__":
    run_main(main)
