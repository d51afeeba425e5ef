"""Keep a finished run as a reference that is shipped: its raw data, and what was made from them.

python keep_reference.py --run FOLDER --name NAME

FOLDER is where Snakemake ran, with results/ and figures/. Writes reference/NAME, whole or not at all; an existing one is never overwritten.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.artifact.reference import FOLDER, keep
from coldprefix.process.program import run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    kept = keep(arguments.run, FOLDER / arguments.name)
    print(
        f"kept {arguments.run} as {kept.folder.relative_to(FOLDER.parent)}; look whether it says more than it should before you commit it",
        flush=True,
    )


if __name__ == "__main__":
    run_main(main)
