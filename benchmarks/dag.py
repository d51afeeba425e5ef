"""Time to build the graph of many cells, beside an empty Snakefile with as many jobs; interleaved.

.venv/bin/python benchmarks/dag.py [--cells 1000 10000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")

EMPTY = """
rule all:
    input: expand("out/{{i}}", i=range({jobs}))
rule job:
    output: "out/{{i}}"
    shell: "touch {{output}}"
"""


def seconds(*arguments: str) -> tuple[float, int]:
    """(wall time of a dry run in s, number of jobs in it)"""
    began = time.perf_counter()
    done = subprocess.run([SNAKEMAKE, "-n", "--quiet", "rules", *arguments], capture_output=True, text=True)
    took = time.perf_counter() - began
    total = re.search(r"^total +(\d+)$", done.stdout + done.stderr, re.M)
    if done.returncode or not total:
        raise SystemExit((done.stdout + done.stderr)[-3000:])
    return took, int(total[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for cells in arguments.cells:
        with tempfile.TemporaryDirectory() as folder:
            names = [f"A{128 + i % 400}_B{8 + i // 400}" for i in range(cells // 8)]
            (Path(folder) / "many.yaml").write_text(json.dumps({"experiments": ["main"], "configurations": names}))
            ours_command = ["-s", str(ROOT / "Snakefile"), "--directory", folder, "--configfile", f"{folder}/many.yaml"]
            jobs = seconds(*ours_command)[1]
            (Path(folder) / "Snakefile").write_text(EMPTY.format(jobs=jobs - 1))
            pairs = [
                (seconds("-s", f"{folder}/Snakefile", "--directory", folder)[0], seconds(*ours_command)[0]) for _ in range(arguments.rounds)
            ]
        theirs, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = sorted(b / a for a, b in pairs)
        print(
            f"{8 * len(names):>6} cells, {jobs} jobs: empty Snakefile {theirs:.1f} s, coldprefix {ours:.1f} s, ratio {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
