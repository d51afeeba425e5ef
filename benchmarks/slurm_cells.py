"""Many cells of the null engine through a SLURM of this machine: what the head takes, and what each cell's job costs beside its measurement.

    tests/slurm/cluster.sh up
    .venv/bin/python benchmarks/slurm_cells.py [--cells 100] [--nodes-folder /tmp/coldprefix-slurm]
    tests/slurm/cluster.sh down

A cell's job starts three Snakemakes (the head's, and two on the node) and the measuring program. CPU seconds are those of the processes, so they
say something on a busy machine, too; wall seconds do not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [
    str(ROOT / "src"),
    str(ROOT / "tests"),
    str(ROOT / "tests" / "slurm"),
    str(ROOT / "tests" / "faults"),
    str(ROOT / "tests" / "workflow"),
]

import psutil
from slurm_run import CONFIG, TARGET, Run, checkout, driver

SETUP = ["results/setup/models/gpt2-tiny.json", "results/setup/environments/driver.json", "results/preflight/agreed.json"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--nodes-folder", type=Path, default=Path(tempfile.gettempdir()) / "coldprefix-slurm")
    parser.add_argument("arguments", nargs="*", help="more for Snakemake, e.g. -- --slurm-array-jobs all")
    own = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Run(checkout(Path(folder) / "copy"), Path(folder) / "run", own.nodes_folder)
        run.folder.mkdir()
        names = ", ".join(f"A{16 + i}_B{8}" for i in range(own.cells // 2))
        (run.folder / "my.yaml").write_text(CONFIG.replace("[A64_B32]", f"[{names}]"))
        done = run.run("default", *SETUP)
        if done.returncode:
            raise SystemExit((done.stdout + done.stderr)[-3000:])
        began = time.monotonic()
        run.start(TARGET, *own.arguments, "--config", "vary=host")
        assert run.process is not None
        head = psutil.Process(run.process.pid)
        cpu_s, most_mib = 0.0, 0.0
        while run.process.poll() is None:
            try:
                times, memory = head.cpu_times(), head.memory_info()
                cpu_s, most_mib = times.user + times.system, max(most_mib, memory.rss / 2**20)
            except psutil.Error:
                break
            time.sleep(0.2)
        code, wall_s = run.process.wait(), time.monotonic() - began
        if code:
            raise SystemExit(run.output()[-3000:])
        records = [json.loads(file.read_text()) for file in (run.folder / "results/raw").rglob("provenance.json")]
        jobs_s = [record["job_s"] for record in records]
        print(f"{driver().parent.name}: {len(records)} cells on {len({r['host']['machine'] for r in records})} nodes")
        print(f"head: {cpu_s:.1f} s of CPU ({1e3 * cpu_s / len(records):.0f} ms a cell), at most {most_mib:.0f} MiB")
        print(f"wall: {wall_s:.0f} s; a cell's measuring program {statistics.median(jobs_s):.1f} s (median)")


if __name__ == "__main__":
    main()
