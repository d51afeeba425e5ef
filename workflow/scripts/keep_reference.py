"""Keep a finished run as a reference that is shipped: its raw data, and what was made from them.

python keep_reference.py --run FOLDER --name NAME [--made-elsewhere] [--word FOLDER=WORD ...]

FOLDER is where Snakemake ran, with results/ and figures/. Writes reference/NAME, whole or not at all; an existing one is never overwritten.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.artifact.reference import FOLDER, Reference, keep
from coldprefix.artifact.render import make
from coldprefix.errors import ColdprefixError
from coldprefix.process.program import run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--made-elsewhere", action="store_true", help="only raw data came home: make tables, figures and claims here first")
    parser.add_argument("--word", action="append", default=[], help="in records of earlier versions: FOLDER=WORD")
    arguments = parser.parse_args()
    run = arguments.run.absolute()
    if arguments.made_elsewhere:
        failed = make(Reference(run), run)
        if failed:
            raise ColdprefixError("\n".join(failed))
    kept = keep(run, FOLDER / arguments.name, dict(word.split("=", 1) for word in arguments.word))
    print(
        f"kept {arguments.run} as {kept.folder.relative_to(FOLDER.parent)}; look whether it says more than it should before you commit it",
        flush=True,
    )


if __name__ == "__main__":
    run_main(main)
