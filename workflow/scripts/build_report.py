"""Put everything into one HTML file that works offline.

python build_report.py --trials FILE --summary FILE [--claims FILE] --figures figures/*.png --self-check FILE --clock FILE --provenance FILE --out results/report.html
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.advice.table import ADVICE
from coldprefix.analysis.self_check import SELF_CHECK
from coldprefix.data import tables
from coldprefix.data.parquet import read_table, read_tables
from coldprefix.data.raw import read_records
from coldprefix.files import write_text
from coldprefix.process.program import run_main
from coldprefix.report import page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=Path, required=True)
    parser.add_argument("--summary", type=Path, required=True)
    parser.add_argument("--claims", type=Path)
    parser.add_argument("--figures", type=Path, nargs="*", default=[], help="PNG files, with .csv and .txt beside each")
    parser.add_argument("--calibration", type=Path, help="the table of the calibration as text")
    parser.add_argument("--clock", type=Path, help="the calibration's summary: results/calibration/summary.parquet")
    parser.add_argument("--peers", type=Path, help="the engines' own instruments beside the harness, as text")
    parser.add_argument("--self-check", type=Path, help="the same computation measured in two places: results/self_check.parquet")
    parser.add_argument("--advice", type=Path, help="where the parts of a prompt should stand: results/layout/advice.parquet")
    parser.add_argument("--provenance", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    trials = read_tables([arguments.trials], tables.TRIALS)
    summary = read_tables([arguments.summary], tables.SUMMARY)
    claims = read_table(arguments.claims) if arguments.claims else None
    provenance = read_records(arguments.provenance)
    calibration = arguments.calibration.read_text() if arguments.calibration else None
    peers = arguments.peers.read_text() if arguments.peers else None
    checked = read_tables([arguments.self_check], SELF_CHECK) if arguments.self_check else None
    clock = read_table(arguments.clock) if arguments.clock else None
    advice = read_tables([arguments.advice], ADVICE) if arguments.advice else None
    html = page.build(trials, summary, claims, provenance, arguments.figures, calibration, peers, checked, clock, advice)
    write_text(arguments.out, html)


if __name__ == "__main__":
    run_main(main)
