"""One cell from its job to its raw files: engine processes are started, trials run, what was found is written."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from coldprefix.data.parquet import write_parquet
from coldprefix.data.raw import as_frame, write_cell
from coldprefix.engines.clock import long_lived
from coldprefix.engines.contract import Session, load
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job, Until
from coldprefix.measure import protocol, provenance
from coldprefix.measure.answers import check_answers
from coldprefix.measure.gpu_state import GpuState
from coldprefix.measure.stopping import fewest_and_most, precise_enough
from coldprefix.process import lease
from coldprefix.process.identity import age_s
from coldprefix.process.locks import MACHINE, exclusive

Measured = tuple[list[protocol.Row], dict[str, Any]]  # the rows of one engine process, and what is known of it


def open_session(job: Job, weights: Path, log: Path, owner: int | None, process: int = 0) -> Session:
    """Start an engine process of a job and wait until it is ready; see `contract.Engine.open`."""
    engine = load(job.engine)
    if owner and not engine.shares_server(job):
        lease.end_all(owner)  # nothing runs beside the engine that is measured
    return engine.open(job, weights, log, owner, process)


def measure_cell(job: Job, measure: Callable[[int, int], Measured], folder: Path, log: Path, owner: int | None) -> None:
    """Measure a cell and write its rows and its record into ``folder``.

    Args:
        measure: (number of the process, rows before it) -> what `measure_process` returns.

    Raises:
        ColdprefixError: the engine failed, or too many trials are not what they were meant to be: then their rows are in
            requests.rejected.parquet, and nothing has its final name.
    """
    with exclusive(job.cell, owner):
        rows, record = _processes(job, measure)
    frame = as_frame(rows)
    try:
        protocol.check_rejected(rows, job)
    except ColdprefixError as error:
        kept = folder / "requests.rejected.parquet"
        write_parquet(frame, kept)
        raise ColdprefixError(f"{error}\nThe rows are kept in {kept}, the engine's log in {log}") from None
    record = provenance.without_places(record) | {
        "job": job.model_dump(mode="json"),
        "software": provenance.software(),
        "machine_lock": provenance.without_places(str(MACHINE)),
        "engine_busy_s": round(sum(row["total_ms"] or 0.0 for row in rows) / 1e3, 3),
        "settle_s": round(1e-3 * job.protocol.settle_ms * sum(row["step"] in ("query", "stream") for row in rows), 3),
        "job_s": round(age_s(os.getpid()), 3),
        "gpus_after": provenance.gpus(),  # clocks and temperature under load; those of `host` are from before
        "finished_at": datetime.now(UTC).isoformat(),
    }
    write_cell(folder, frame, record)


def measure_process(job: Job, weights: Path, log: Path, owner: int | None, process: int, first_order: int) -> Measured:
    """All trials of one engine process, which is started for them or lent. Its log: ``log``, of later ones with their number."""
    own_log = log.with_suffix(f".{process}{log.suffix}") if process else log
    most = fewest_and_most(job.protocol.processes)[1]
    trials = (job.protocol.burn_in + job.protocol.trials) * len(job.kinds)
    bar = _Bar(f"{job.cell} {process + 1}/{most}" if most > 1 else job.cell, trials)
    with bar, open_session(job, weights, own_log, owner, process) as session, long_lived():
        gpus, samples = GpuState(), list[dict[str, Any]]()

        def on_trial(done: list[protocol.Row]) -> None:
            samples.extend(gpus.after(done[0]))
            bar.on_trial(done)

        rows = protocol.run_process(session, job, process, first_order, on_trial, owner)
        answers = check_answers(session, job, process, protocol.first_free(job)) if process == 0 else None
        known = {
            "answers": answers,
            "in_force": session.in_force(),
            "engine_start_s": round(session.start_s, 3),
            "engine_used_before": session.used_before,
            "gpu_samples": samples,
            "noted": session.noted(),
        }
        return rows, known


def _processes(job: Job, measure: Callable[[int, int], Measured]) -> Measured:
    """All processes of a cell. Returns its rows and the beginning of its provenance."""
    rows: list[protocol.Row] = []
    record: dict[str, Any] = {"host": provenance.host(), "started_at": datetime.now(UTC).isoformat()}
    samples: list[dict[str, Any]] = []
    record |= {"engine_start_s": [], "engine_used_before": [], "noted": []}
    began = time.monotonic()
    fewest, most = fewest_and_most(job.protocol.processes)
    for process in range(most):
        own, known = measure(process, len(rows))
        rows += own
        for key in ("engine_start_s", "engine_used_before", "noted"):
            record[key].append(known[key])
        samples += known["gpu_samples"]
        record.setdefault("answers", known["answers"])
        if record.setdefault("in_force", known["in_force"]) != known["in_force"]:
            raise ColdprefixError(f"a fresh engine came up with other settings: {record['in_force']} then {known['in_force']}")
        asked = job.protocol.processes
        if process + 1 >= fewest and isinstance(asked, Until) and precise_enough(*_ttfts(rows, job), asked.precision):
            break
    return rows, record | {"gpu_samples": samples or None, "wall_s": round(time.monotonic() - began, 3)}


def _ttfts(rows: list[protocol.Row], job: Job) -> tuple[list[list[float]], list[list[float]]]:
    """TTFTs in ms of the valid trials of the cell's own state and of its first partner, for each process."""
    partner = next((kind.state for kind in job.kinds if kind.state != job.state), None)
    bad = {(row["process"], row["trial"], row["state"]) for row in rows if row["rejection"] or row["burn_in"]}
    found: dict[tuple[int, str], list[float]] = {}
    for row in rows:
        if row["ttft_ms"] is not None and (row["process"], row["trial"], row["state"]) not in bad:
            found.setdefault((row["process"], row["state"]), []).append(row["ttft_ms"])
    numbers = sorted({row["process"] for row in rows})
    own, other = ([found.get((n, state), []) for n in numbers] for state in (job.state, partner or ""))
    return own, other


class _Bar:
    """The progress bar of a process. It keeps the terminal: an engine inside this process has its output sent to its log."""

    def __init__(self, what: str, trials: int) -> None:
        self._what = what
        self._terminal = os.fdopen(os.dup(2), "w")
        self._bar = tqdm(total=trials, desc=f"{what} starting", unit="trial", dynamic_ncols=True, file=self._terminal)
        self._ttft_ms: list[float] = []
        self._rejected = 0

    def on_trial(self, done: list[protocol.Row]) -> None:
        self._rejected += any(row["rejection"] for row in done)
        if not done[0]["burn_in"] and done[0]["own"] and done[-1]["ttft_ms"] is not None:
            self._ttft_ms.append(done[-1]["ttft_ms"])
        self._bar.set_description(self._what)
        median = f"{statistics.median(self._ttft_ms):.1f} ms" if self._ttft_ms else "-"
        self._bar.set_postfix_str(f"median TTFT {median}, {self._rejected} rejected")
        self._bar.update()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._terminal.close()
