"""Put the cells together: requests, trials and summary in parquet, and the medians as a table.

    python aggregate.py --raw results/raw --cells phase3a/A512_B256/hit ... --out results [--requests]

Writes trials.parquet, summary.parquet, summary.txt and, with --requests, requests.parquet; prints the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import polars as pl

from coldprefix import caveats, costs, tables
from coldprefix.aggregate import check_comparable, check_same_prompts, summary_of, table, trials_of
from coldprefix.caveats import caveats_of
from coldprefix.config import Cell
from coldprefix.errors import ColdprefixError, run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--cells", nargs="+", required=True, help="phase/configuration/state")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--requests", action="store_true", help="also write all requests in one file")
    arguments = parser.parse_args()
    frames = []
    records = []
    for cell in arguments.cells:
        folder = arguments.raw / cell
        frame = tables.read_requests(folder / "requests.parquet")
        found = [Cell(*row).path for row in frame.select("phase", "variant", "configuration", "state").unique().rows()]
        if found != [cell]:
            raise ColdprefixError(f"{folder}/requests.parquet holds {found}, not the cell {cell}: has it been moved or edited?")
        frames.append(frame)
        records.append(json.loads((folder / "provenance.json").read_text()))
    check_comparable(records)
    requests = pl.concat(frames)
    check_same_prompts(requests)
    trials = trials_of(requests.lazy()).collect().cast(tables.schema(tables.TRIALS))
    summary = summary_of(trials)
    written = [(trials, tables.TRIALS, "trials"), (summary, tables.SUMMARY, "summary")]
    if arguments.requests:
        written.append((requests, tables.REQUESTS, "requests"))
    for frame, columns, name in written:
        tables.validate(frame, columns, name)
        tables.write_parquet(frame, arguments.out / f"{name}.parquet")
    doubts = caveats_of(trials, records)
    text = f"{table(summary)}\n{costs.table(records)}" + (f"\n{caveats.text(doubts)}" if len(doubts) else "")
    (arguments.out / "summary.txt").write_text(text)
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    run_main(main)
