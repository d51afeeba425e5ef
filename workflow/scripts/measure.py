"""Measure one cell. Runs in the engine's environment.

    python measure.py --job JOB --model DIR --gguf FILE --requests OUT.parquet --provenance OUT.json --log FILE

Starts the engine, runs the protocol, stops it, writes one row per request and one record of provenance. If too many trials
are rejected, the rows go to <requests>.rejected.parquet, nothing is written under the final names, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from tqdm import tqdm

from coldprefix.measure import protocol, provenance
from coldprefix.engines.clock import age_s, long_lived
from coldprefix.engines.open import open_session
from coldprefix.errors import ColdprefixError, naming, run_main
from coldprefix.process.locks import exclusive
from coldprefix.files import text_of
from coldprefix.study.plan import Job
from coldprefix.data.raw import put_back, write_cell
from coldprefix.data.tables import write_parquet


def measure(job: Job, model: Path, gguf: Path, log: Path, owner: int | None) -> tuple[list[protocol.Row], dict[str, Any]]:
    """All replicates of a cell. Returns its rows and its provenance."""
    rows: list[protocol.Row] = []
    starts: list[float] = []
    per_replicate = job.protocol.burn_in + protocol.most_trials(job.protocol.trials)
    record: dict[str, Any] = {"host": provenance.host(), "started_at": datetime.now(UTC).isoformat()}
    began = time.monotonic()
    medians: list[float] = []
    rejected = 0
    # The bar keeps the terminal: an engine inside this process has its output sent to its log.
    terminal = os.fdopen(os.dup(2), "w")
    total = per_replicate * job.protocol.replicates
    with terminal, tqdm(total=total, desc=f"{job.cell} starting", unit="trial", dynamic_ncols=True, file=terminal) as bar:

        def on_trial(done: list[protocol.Row]) -> None:
            nonlocal rejected
            rejected += any(row["rejection"] for row in done)
            if not done[0]["burn_in"] and done[-1]["ttft_ms"] is not None:
                medians.append(done[-1]["ttft_ms"])
            bar.set_description(job.cell)
            median = f"{statistics.median(medians):.1f} ms" if medians else "-"
            bar.set_postfix_str(f"median TTFT {median}, {rejected} rejected")
            bar.update()

        for replicate in range(job.protocol.replicates):
            with open_session(job, model, gguf, log, owner) as session, long_lived():
                starts.append(round(session.start_s, 3))
                record["engine_used_before"] = session.used_before
                in_force = session.in_force()
                if record.setdefault("in_force", in_force) != in_force:
                    raise ColdprefixError(f"a fresh engine came up with other settings: {record['in_force']} then {in_force}")
                rows += protocol.run_replicate(session, job, replicate, len(rows), on_trial)
            bar.total = bar.n + per_replicate * (job.protocol.replicates - replicate - 1)  # fewer trials than at most
    record |= {"engine_start_s": starts, "wall_s": round(time.monotonic() - began, 3)}
    return rows, record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", required=True, help="the job (coldprefix.job.Job) as JSON, or a file that holds it")
    parser.add_argument("--model", type=Path, required=True, help="folder of the safetensors model")
    parser.add_argument("--gguf", type=Path, required=True, help="GGUF file; unused by vLLM")
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--provenance", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True, help="the engine's own output")
    parser.add_argument("--owner", type=int, help="process id of the workflow, with which servers that cells share end")
    arguments = parser.parse_args()
    job = Job.model_validate_json(text_of(arguments.job))
    with naming(job.cell, arguments.log):
        if put_back(arguments.requests.parent, job):
            print(f"\ncoldprefix: {job.cell} had been measured to its end when its run was killed; that is kept\n", file=sys.stderr)
            return
        inherited = dict(os.environ)
        with exclusive(job.cell):
            rows, record = measure(job, arguments.model, arguments.gguf, arguments.log, arguments.owner)
        os.environ.update(inherited)  # an engine in this process had it replaced
        frame = protocol.as_frame(rows)
        try:
            protocol.check_rejected(rows, job)
        except ColdprefixError as error:
            kept = arguments.requests.with_suffix(".rejected.parquet")
            write_parquet(frame, kept)
            raise ColdprefixError(f"{error}\nThe rows are kept in {kept}, the engine's log in {arguments.log}") from None
        record |= {
            "job": job.model_dump(mode="json"),
            "software": provenance.software(),
            "engine_busy_s": round(sum(row["total_ms"] or 0.0 for row in rows) / 1e3, 3),
            "settle_s": round(2e-3 * job.protocol.settle_ms * len(rows) / 4, 3),
            "job_s": round(age_s(os.getpid()), 3),
            "gpus_after": provenance.gpus(),  # clocks and temperature under load; those of `host` are from before
            "finished_at": datetime.now(UTC).isoformat(),
        }
        write_cell(arguments.requests, arguments.provenance, frame, record)


if __name__ == "__main__":
    run_main(main)
