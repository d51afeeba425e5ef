"""Snakemake's CPU share and threads while one job sleeps, after 10, 100, 300 and 500 finished jobs.

python3 measure.py [snakemake arguments]        e.g. python3 measure.py --config limiter=off
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")


def of(pid: int) -> tuple[float, int]:
    """(CPU seconds, threads) of a process"""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK, int(fields[17])


with tempfile.TemporaryDirectory() as folder:
    out = Path(folder) / "out"
    command = ["snakemake", "-s", HERE / "Snakefile", "--directory", folder, "--cores", "1", "--scheduler", "greedy", *sys.argv[1:]]
    snakemake = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for finished in (10, 100, 300, 500):
        while not out.exists() or len(list(out.iterdir())) < finished:
            if snakemake.poll() is not None:
                sys.exit("snakemake has ended")
            time.sleep(0.05)
        time.sleep(1)
        cpu, began = of(snakemake.pid)[0], time.monotonic()
        time.sleep(10)
        after, threads = of(snakemake.pid)
        share = (after - cpu) / (time.monotonic() - began)
        print(f"{finished} finished jobs: {share:.1%} of a core, {threads} threads, {after:.0f} s of CPU time so far", flush=True)
    print("snakemake ends with", snakemake.wait())
