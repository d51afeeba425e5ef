"""What Snakemake itself costs while a long run is under way: its share of a core and its threads, early and late in one run.

.venv/bin/python benchmarks/snakemake_share.py [--cells 500] [--snakemake-arguments --no-hooks]

A real run of the workflow in a temporary folder: so many cells of the tiny model on llama.cpp's Python interface, up to results/summary.txt.
"In all" is everything from the end of one cell to that of another; "while a cell runs" leaves out the second after each cell's end, in which
Snakemake records one job and starts the next, and nothing is measured. 100 % is one core. With --no-hooks Snakemake keeps its limit of jobs per
second, which the workflow's onstart takes away: so it was before. [kdamond.0] is a thread of some kernels that looks which pages of memory are
in use; "-" where there is none. Each line comes as soon as its cells are done; 500 cells take some 30 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SNAKEMAKE = str(Path(sys.executable).parent / "snakemake")
EVERY_S = 0.25
AFTER_S = 1.0  # of a cell's end: the next job is being started
HALF = 5  # cells of a window before and after its middle
COUNTS = {
    "processes": 1,
    "partners": [],
    "trials": 2,
    "burn_in": 0,
    "settle_ms": 0,
    "stream_tokens": 2,
    "question_tokens": 8,
    "max_rejected": 1,
}


@dataclass(frozen=True)
class Sample:
    at: float
    cells: int
    cpu_s: float
    threads: int
    kernel_s: float


def cpu_of(process: int | None) -> tuple[float, int]:
    """(CPU time in s, threads) of a process"""
    if process is None:
        return 0.0, 0
    values = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK"), int(values[17])


def kernel_thread(name: str) -> int | None:
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == name:
                return int(path.parent.name)
        except OSError:  # has ended meanwhile
            pass
    return None


def samples_of(run: subprocess.Popen[bytes], raw: Path, kernel: int | None) -> Iterator[Sample]:
    """One every EVERY_S until the run ends."""
    while run.poll() is None:
        cells = sum(1 for _ in raw.glob("*/*/provenance.json"))
        yield Sample(time.monotonic(), cells, *cpu_of(run.pid), cpu_of(kernel)[0])
        time.sleep(EVERY_S)


def share(steps: list[tuple[Sample, Sample]], of: str) -> float:
    """Of a core, in %."""
    took = sum(after.at - before.at for before, after in steps)
    return 100 * sum(getattr(after, of) - getattr(before, of) for before, after in steps) / took if took else float("nan")


def line_of(samples: list[Sample], first: int, last: int, kernel: int | None) -> str:
    """What happened from the end of one cell to that of another."""
    steps = [(a, b) for a, b in pairwise(samples) if first <= a.cells < last]
    ended = {s.cells: s.at for s in reversed(samples)}  # when each count was first seen
    quiet = [(a, b) for a, b in steps if a.cells == b.cells and a.at - ended[a.cells] >= AFTER_S]
    damon = f"{share(steps, 'kernel_s'):.2f} %" if kernel else "-"
    shares = [f"{share(steps, 'cpu_s'):.2f} %", f"{share(quiet, 'cpu_s'):.2f} %", damon]
    each = (steps[-1][1].at - steps[0][0].at) / (last - first)
    return f"{f'{first} to {last}':>12}{each:>9.1f}{max(b.threads for _, b in steps):>9}" + "".join(f"{value:>21}" for value in shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--snakemake-arguments", nargs=argparse.REMAINDER, default=[], help="the rest of the line, for Snakemake")
    arguments = parser.parse_args()
    total = max(arguments.cells + arguments.cells % 2, 4 * HALF)  # hit and miss of each configuration
    names = [f"A{16 + i % 25}_B{8 + i // 25}" for i in range(total // 2)]
    middles = sorted({2 * HALF, *(m for m in (100, 250) if m <= total - 3 * HALF), total - HALF})
    kernel = kernel_thread("kdamond.0")
    samples: list[Sample] = []
    print(" ".join([f"{total} cells; snakemake", *arguments.snakemake_arguments]))
    print(f"{'cells':>12}{'s each':>9}{'threads':>9}{'Snakemake, in all':>21}{'while a cell runs':>21}{'[kdamond.0]':>21}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        values = {"model": "gpt2-tiny", "accelerator": "cpu", "experiments": ["main"], "phases": ["phase3b"], "configurations": names}
        (folder / "many.yaml").write_text(json.dumps(values | COUNTS))
        where = ["-s", str(ROOT / "Snakefile"), "--directory", temporary, "--configfile", f"{temporary}/many.yaml", "--nocolor"]
        command = [SNAKEMAKE, *where, "results/summary.txt", *arguments.snakemake_arguments]
        with open(folder / "output.txt", "wb") as output:
            run = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            try:
                for sample in samples_of(run, folder / "results/raw/phase3b", kernel):
                    samples.append(sample)
                    if middles and sample.cells >= middles[0] + HALF:
                        print(line_of(samples, middles[0] - HALF, middles.pop(0) + HALF, kernel), flush=True)
            finally:
                run.terminate()  # only if this program was interrupted: then the running cell ends, and the run
                run.wait()
        if run.returncode or not (folder / "results/summary.txt").exists():
            raise SystemExit((folder / "output.txt").read_text()[-3000:])


if __name__ == "__main__":
    main()
