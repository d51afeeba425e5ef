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
from coldprefix.study import checks, registry

HEAD = """# What was reused, by model, edit and backend

Written by `workflow/scripts/write_reuse_tables.py` from the raw files of a run; nothing in it is typed by hand. {where}

## What runs where

{runs}

## Tokens reused

Of [A, B] and a question ({lengths} tokens of A, B and Q), all trials, burn-in and rejected ones included. *first*: the query; *second*: the streaming query after
the old prompt has been sent again; *old prompt again*: that old prompt after the query. In brackets what the rule of the engine's cache says where it is
a range, in bold where it is another number. {right} of {all} are as the rule says.

{counts}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, default=Path("results/raw"))
    parser.add_argument("--experiments", default="architectures")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    cells = reuse_table.read(arguments.raw, arguments.experiments.split(","))
    found = list(reuse_table.counts(cells))
    jobs = [record["job"] for record, _ in cells]
    config = checks.load(ROOT / "config.yaml")
    asked = [
        variant.model
        for name in arguments.experiments.split(",")
        if name in config.sweeps
        for variant in config.sweeps[name].variants.values()
    ]
    names = dict.fromkeys([name for name in asked if name] + [job["model"]["name"] for job in jobs])
    architectures = {name: config.models[name].architecture if name in config.models else "-" for name in names}
    phases = list(registry.phases())
    versions = sorted({f"{registry.engine(r['job']['engine']).title} {r['in_force']['version']}" for r, _ in cells})
    lengths = sorted({"/".join(str(kind["lengths"][part]) for part in "ABQ") for job in jobs for kind in job["kinds"]})
    page = HEAD.format(
        where=f"{', '.join(versions)}; {jobs[0]['accelerator']}.",
        runs=reuse_table.runs_table(cells, architectures, phases, jobs[0]["accelerator"]),
        lengths=", ".join(lengths),
        right=sum(not count.wrong for count in found),
        all=len(found),
        counts=reuse_table.counts_table(found),
    )
    write_text(arguments.out, page)


if __name__ == "__main__":
    run_main(main)
