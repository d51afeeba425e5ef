"""One cell from its job to its raw files: engines are started, trials run, what was found is written."""

from __future__ import annotations

import os
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from coldprefix.data.parquet import write_parquet
from coldprefix.data.raw import as_frame, write_cell
from coldprefix.engines.clock import long_lived
from coldprefix.engines.contract import Session, load
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job
from coldprefix.measure import protocol, provenance
from coldprefix.measure.stopping import most_trials
from coldprefix.process import lease
from coldprefix.process.identity import age_s
from coldprefix.process.locks import MACHINE, exclusive


def open_session(job: Job, weights: Path, log: Path, owner: int | None) -> Session:
    """Start the engine of a job and wait until it is ready; see `contract.Engine.open`."""
    engine = load(job.engine)
    if owner and not engine.shares_server(job):
        lease.end_all(owner)  # nothing runs beside the engine that is measured
    return engine.open(job, weights, log, owner)


def measure_cell(job: Job, weights: Path, folder: Path, log: Path, owner: int | None) -> None:
    """Measure a cell and write its rows and its record into ``folder``.

    Raises:
        ColdprefixError: the engine failed, or too many trials are not what they were meant to be: then their rows are in
            requests.rejected.parquet, and nothing has its final name.
    """
    with exclusive(job.cell, owner):
        rows, record = _replicates(job, weights, log, owner)
    frame = as_frame(rows)
    try:
        protocol.check_rejected(rows, job)
    except ColdprefixError as error:
        kept = folder / "requests.rejected.parquet"
        write_parquet(frame, kept)
        raise ColdprefixError(f"{error}\nThe rows are kept in {kept}, the engine's log in {log}") from None
    record |= {
        "job": job.model_dump(mode="json"),
        "software": provenance.software(),
        "machine_lock": str(MACHINE),
        "engine_busy_s": round(sum(row["total_ms"] or 0.0 for row in rows) / 1e3, 3),
        "settle_s": round(2e-3 * job.protocol.settle_ms * len(rows) / 4, 3),
        "job_s": round(age_s(os.getpid()), 3),
        "gpus_after": provenance.gpus(),  # clocks and temperature under load; those of `host` are from before
        "finished_at": datetime.now(UTC).isoformat(),
    }
    write_cell(folder, frame, record)


def _replicates(job: Job, weights: Path, log: Path, owner: int | None) -> tuple[list[protocol.Row], dict[str, Any]]:
    """All replicates of a cell. Returns its rows and the beginning of its provenance."""
    rows: list[protocol.Row] = []
    starts: list[float] = []
    per_replicate = job.protocol.burn_in + most_trials(job.protocol.trials)
    record: dict[str, Any] = {"host": provenance.host(), "started_at": datetime.now(UTC).isoformat()}
    began = time.monotonic()
    with _Bar(job.cell, per_replicate * job.protocol.replicates) as bar:
        for replicate in range(job.protocol.replicates):
            with open_session(job, weights, log, owner) as session, long_lived():
                starts.append(round(session.start_s, 3))
                record["engine_used_before"] = session.used_before
                in_force = session.in_force()
                if record.setdefault("in_force", in_force) != in_force:
                    raise ColdprefixError(f"a fresh engine came up with other settings: {record['in_force']} then {in_force}")
                rows += protocol.run_replicate(session, job, replicate, len(rows), bar.on_trial, owner)
            bar.expect(per_replicate * (job.protocol.replicates - replicate - 1))
    return rows, record | {"engine_start_s": starts, "wall_s": round(time.monotonic() - began, 3)}


class _Bar:
    """The progress bar of a cell. It keeps the terminal: an engine inside this process has its output sent to its log."""

    def __init__(self, cell: str, trials: int) -> None:
        self._cell = cell
        self._terminal = os.fdopen(os.dup(2), "w")
        self._bar = tqdm(total=trials, desc=f"{cell} starting", unit="trial", dynamic_ncols=True, file=self._terminal)
        self._ttft_ms: list[float] = []
        self._rejected = 0

    def on_trial(self, done: list[protocol.Row]) -> None:
        self._rejected += any(row["rejection"] for row in done)
        if not done[0]["burn_in"] and done[-1]["ttft_ms"] is not None:
            self._ttft_ms.append(done[-1]["ttft_ms"])
        self._bar.set_description(self._cell)
        median = f"{statistics.median(self._ttft_ms):.1f} ms" if self._ttft_ms else "-"
        self._bar.set_postfix_str(f"median TTFT {median}, {self._rejected} rejected")
        self._bar.update()

    def expect(self, more: int) -> None:
        """So many trials are still to come at most: a replicate may end early."""
        self._bar.total = self._bar.n + more

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._terminal.close()
