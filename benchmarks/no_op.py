"""Time of a no-op `snakemake -n` beside that of an empty Snakefile, interleaved.

.venv/bin/python benchmarks/no_op.py FOLDER [rounds]        FOLDER holds a finished run, e.g. the checkout itself
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")


def seconds(*arguments: str) -> float:
    began = time.perf_counter()
    done = subprocess.run([SNAKEMAKE, "-n", *arguments], capture_output=True, text=True, check=True)
    took = time.perf_counter() - began
    if "Nothing to be done" not in done.stdout + done.stderr:
        raise SystemExit(f"not a no-op:\n{done.stdout[-2000:]}")
    return took


def main(folder: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as empty:
        (Path(empty) / "Snakefile").touch()
        pairs = [
            (seconds("-s", f"{empty}/Snakefile", "--directory", empty), seconds("-s", str(ROOT / "Snakefile"), "--directory", folder))
            for _ in range(rounds)
        ]
    ratios = sorted(ours / theirs for theirs, ours in pairs)
    print(f"empty Snakefile  {statistics.median(p[0] for p in pairs):.2f} s (median of {rounds})")
    print(f"coldprefix       {statistics.median(p[1] for p in pairs):.2f} s")
    print(f"ratio            {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 7)
