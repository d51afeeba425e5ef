"""Every table, page and figure of the shipped references once more from their raw data, beside the shipped ones: PASS or FAIL.

python render.py [--name NAME] [--out rendered]

No engine, no compiler, no network: it cannot measure. Writes OUT/NAME/{results,figures} and OUT/NAME/render.txt, also printed. The exit code
is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.artifact.reference import named, references
from coldprefix.artifact.render import render, text, workers
from coldprefix.errors import ColdprefixError
from coldprefix.files import write_text
from coldprefix.process.program import run_main


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", help="one reference; all if not named")
    parser.add_argument("--out", type=Path, default=Path("rendered"))
    arguments = parser.parse_args()
    chosen = [named(arguments.name)] if arguments.name else references()
    if not chosen:
        raise ColdprefixError("there is nothing to render: the folder reference is empty")
    began, passed = time.monotonic(), True
    # Two at a time: a report is made last and alone, and would leave the other CPUs idle.
    with workers() as pool, ThreadPoolExecutor(2) as two:
        for reference, found in zip(chosen, two.map(lambda one: render(one, arguments.out / one.name, pool), chosen), strict=True):
            told = text(reference, found)
            write_text(arguments.out / reference.name / "render.txt", told)
            print(f"{told}Look at {arguments.out / reference.name / 'results' / 'report.html'}\n", flush=True)
            passed &= found.passed
    print(f"{len(chosen)} references in {time.monotonic() - began:.0f} s: {'PASS' if passed else 'FAIL'}", flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    run_main(main)
