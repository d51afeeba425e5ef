"""Draw a figure from the summary, with the rows it shows beside it.

python plot.py fig1 --summary results/summary.parquet --provenance FILE... --style JSON --out figures/fig1_invalidation.{pdf,png,csv}
python plot.py phase3a ...            the three panels of one phase
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import polars as pl

from coldprefix import tables
from coldprefix.config import PHASES, Figures
from coldprefix.errors import run_main
from coldprefix.figures import fig1_invalidation, phase_panels, style


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=["fig1", *PHASES])
    parser.add_argument("--summary", type=Path, required=True)
    parser.add_argument("--provenance", type=Path, nargs="+", required=True)
    parser.add_argument("--style", required=True, help="the section `figures` of config.yaml as JSON")
    parser.add_argument("--out", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    settings = Figures.model_validate_json(arguments.style)
    summary = pl.read_parquet(arguments.summary)
    tables.validate(summary, tables.SUMMARY, str(arguments.summary))
    provenance = [json.loads(path.read_text()) for path in arguments.provenance]
    if arguments.figure == "fig1":
        figure, rows = fig1_invalidation.draw(summary, provenance, settings)
    else:
        figure, rows = phase_panels.draw(summary, provenance, settings, arguments.figure)
    style.save(figure, rows, arguments.out, settings)


if __name__ == "__main__":
    run_main(main)
