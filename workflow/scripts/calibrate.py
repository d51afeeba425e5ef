"""Measure the harness against null engines whose times are known: bias and jitter of TTFT, error of throughput.

    python calibrate.py --out results/calibration --log results/logs/calibration.log [--samples 40]

Writes samples.parquet, summary.parquet and calibration.txt; prints the table, and each target that was not met.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import polars as pl

from coldprefix.data.parquet import write_table
from coldprefix.files import write_text
from coldprefix.instrument import calibration as sample
from coldprefix.process.locks import exclusive
from coldprefix.process.program import run_main, workflow_pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=40, help="of each time to first token (default 40)")
    parser.add_argument("--threads", type=int, default=2, help="of an engine: so many are busy beside a first run of half the samples")
    arguments = parser.parse_args()
    with exclusive("calibration", workflow_pid()):
        with sample.busy(arguments.threads):
            loaded = sample.take(arguments.log, max(2, arguments.samples // 2), beside=arguments.threads)
        samples = pl.concat([loaded, sample.take(arguments.log, arguments.samples)])
    summary = sample.summarise(samples)
    missed = sample.misses(summary)
    write_table(samples, arguments.out / "samples.parquet")
    write_table(summary.with_columns(missed=pl.lit("; ".join(missed) or None, pl.String())), arguments.out / "summary.parquet")
    text = sample.table(summary) + "".join(f"NOT MET  {line}\n" for line in missed)
    write_text(arguments.out / "calibration.txt", text)
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    run_main(main)
