"""A run beside a shipped reference, claim by claim: PASS or FAIL.

python evaluate.py --reference NAME --results FOLDER [--counts-only]

Counts must be as shipped, exactly. A claim on times passes with the shipped verdict; the ratios of both runs are told. Prints everything, and writes it to
FOLDER/evaluation.txt. The exit code is 1 if a claim fails or a count differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import polars as pl

from coldprefix.analysis import compare
from coldprefix.artifact import judge
from coldprefix.artifact.reference import Reference, named
from coldprefix.claims import listed
from coldprefix.data.parquet import read_table
from coldprefix.data.tables import REQUESTS
from coldprefix.errors import ColdprefixError
from coldprefix.files import write_text
from coldprefix.process.program import run_main
from coldprefix.setup.building import ROOT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, help="a folder of reference/")
    parser.add_argument("--results", type=Path, required=True, help="the results folder of the run that is judged")
    parser.add_argument("--counts-only", action="store_true", help="the run is too short for times: judge counts, and claims on them")
    arguments = parser.parse_args()
    reference = named(arguments.reference)
    broken = reference.check()
    if broken:
        raise ColdprefixError(f"reference/{reference.name} is not as it was shipped: {broken[0]}")
    lines, passed = judged(reference, arguments.results, arguments.counts_only)
    lines += [] if arguments.counts_only else ratios(reference, arguments.results)
    told = "\n".join([*lines, f"{'PASS' if passed else 'FAIL'}: {arguments.results} beside reference/{reference.name}"]) + "\n"
    write_text(arguments.results / "evaluation.txt", told)
    print(told, flush=True)
    return 0 if passed else 1


def judged(reference: Reference, results: Path, counts_only: bool) -> tuple[list[str], bool]:
    """Lines on claims and counts, and whether all passed."""
    requests = read_table(results / "requests.parquet", REQUESTS)
    shipped = pl.concat([pl.read_parquet(file) for file in sorted(reference.results.rglob("requests.parquet"))])
    counts = judge.counts_of(shipped)
    differing = judge.differing_counts(counts, judge.counts_of(requests))
    claims = judge.judge(
        listed.load(ROOT / "claims.yaml"),
        read_table(reference.expected / "results" / "claims.parquet"),
        read_table(results / "claims.parquet"),
        counts_only,
    )
    lines = [claim.line for claim in claims if claim.passed is not None]
    lines.append(
        f"{'FAIL' if differing else 'PASS'} counts: {len(counts) - len(differing)} of {len(counts)} steps of cells reused and computed what was shipped"
    )
    lines += [f"     {line}" for line in differing]
    asked = [claim.passed for claim in claims if claim.passed is not None]
    left = ", ".join(claim.id for claim in claims if claim.passed is None)
    lines.append(f"{sum(asked)} of {len(asked)} claims as shipped; not judged here: {left or 'none'}")
    return lines, all(asked) and not differing


def ratios(reference: Reference, results: Path) -> list[str]:
    """TTFT of this run over that of the reference, and the same of what a miss costs over a hit."""
    one, other = compare.read_run(reference.results), compare.read_run(results)
    differing = compare.check(one, other, list(compare.AXES))
    return compare.table(compare.compare(one, other), [f"reference/{reference.name}", str(results)], differing).splitlines()


if __name__ == "__main__":
    run_main(main)
