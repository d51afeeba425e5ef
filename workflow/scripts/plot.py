"""Draw a figure, with the rows it shows and its caption beside it.

python plot.py fig1_invalidation --trials FILE... --summary FILE... --provenance FILE... --style JSON --out figures/fig1_invalidation.{pdf,png,csv,txt}
python plot.py phase3a_panels ...            the three panels of one phase
python plot.py calibration --samples FILE --style JSON --out figures/calibration.{pdf,png,csv,txt}
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.data import tables
from coldprefix.study.config import PHASES, Figures
from coldprefix.errors import run_main
from coldprefix.figures import (
    calibration,
    fig1_invalidation,
    fig2_scaling,
    fig3_architectures,
    fig4_cascade,
    fig5_batch_size,
    fig6_confound,
    phase_panels,
    style,
)
from coldprefix.data.raw import read_records

FIGURES: dict[str, Callable[[style.Measured, Figures], style.Drawing]] = {
    "fig1_invalidation": fig1_invalidation.draw,
    "fig2_scaling": fig2_scaling.draw,
    "fig3_architectures": fig3_architectures.draw,
    "fig4_cascade": fig4_cascade.draw,
    "fig5_batch_size": fig5_batch_size.draw,
    "fig6_confound": fig6_confound.draw,
    **{f"{phase}_panels": partial(phase_panels.draw, phase=phase) for phase in PHASES},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=[*FIGURES, "calibration"])
    parser.add_argument("--trials", type=Path, nargs="+", default=[])
    parser.add_argument("--summary", type=Path, nargs="+", default=[])
    parser.add_argument("--provenance", type=Path, nargs="+", default=[])
    parser.add_argument("--samples", type=Path, help="of the calibration")
    parser.add_argument("--style", required=True, help="the section `figures` of config.yaml as JSON")
    parser.add_argument("--out", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    settings = Figures.model_validate_json(arguments.style)
    if arguments.figure == "calibration":
        style.save(calibration.draw(tables.read_table(arguments.samples), settings), arguments.out, settings)
        return
    trials = tables.read_tables(arguments.trials, tables.TRIALS)
    summary = tables.read_tables(arguments.summary, tables.SUMMARY)
    provenance = [record for path in arguments.provenance for record in read_records(path)]
    if arguments.figure.endswith("_panels"):  # of one backend: the others' models and machine are not its
        provenance = [record for record in provenance if record["job"]["phase"] == arguments.figure.removesuffix("_panels")]
    style.save(FIGURES[arguments.figure](style.Measured(trials, summary, provenance), settings), arguments.out, settings)


if __name__ == "__main__":
    run_main(main)
