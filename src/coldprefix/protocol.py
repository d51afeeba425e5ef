"""The protocol of a trial, step by step, and the job that runs a cell's trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import polars as pl
import psutil

from coldprefix.config import Until
from coldprefix.engines.session import Completion, Session
from coldprefix.errors import ColdprefixError, EngineRefusal
from coldprefix.job import Job
from coldprefix.prompts import TrialPrompts, common_prefix, draw_trial, prompt_hash
from coldprefix.stopping import precise_enough
from coldprefix.tables import REQUESTS, schema
from coldprefix.verify import intended_reuse, rejection

Row = dict[str, Any]


def run_trial(session: Session, prompts: TrialPrompts, job: Job) -> list[Row]:
    """One trial: warm up, settle, query, re-warm, settle, stream. Returns one row per request, without the cell's keys.

    The query generates one token and is not streamed; the stream generates `stream_tokens` and gives TTFT and throughput.
    """
    protocol = job.protocol
    if protocol.reset == "trial":
        session.reset()
    steps = [
        ("warmup", prompts.warm, 1, False, 0),
        ("query", prompts.query, 1, False, protocol.settle_ms),
        ("rewarm", prompts.warm, 1, False, 0),
        ("stream", prompts.stream, protocol.stream_tokens, True, protocol.settle_ms),
    ]
    rows = []
    warm = session.seen(prompts.warm)
    for step, prompt, max_tokens, stream, settle_ms in steps:
        seen = session.seen(prompt)
        shared = prompts.shared if protocol.request_form == "tokens" else common_prefix(warm, seen)
        intended = intended_reuse(step, shared, protocol.content, protocol.reset, protocol.request_form, session.granularity)
        time.sleep(settle_ms / 1e3)
        try:
            done = session.complete(prompt, max_tokens, stream)
            why = rejection(done, len(seen), intended, max_tokens, stream)
        except EngineRefusal as refusal:
            if protocol.max_rejected < 1:
                raise
            done = Completion(started_at=time.time(), connect_ms=None, total_ms=None)
            why = f"the engine refused: {refusal}"
        rows.append(
            {
                "step": step,
                "request_form": protocol.request_form,
                "content": protocol.content,
                "prompt_tokens": len(seen),
                "prompt_hash": prompt_hash(prompt),
                "intended_cached_tokens": intended,
                "cached_tokens": done.cached_tokens,
                "evaluated_tokens": done.evaluated_tokens,
                "generated_tokens": done.generated_tokens,
                "connect_ms": done.connect_ms,
                "ttft_ms": done.ttft_ms,
                "total_ms": done.total_ms,
                "token_times_ms": done.token_times_ms,
                "engine_prompt_ms": done.engine_prompt_ms,
                "rejection": why,
                "started_at": datetime.fromtimestamp(done.started_at, UTC),
            }
        )
    return rows


class Load:
    """What others take of this machine while we measure, and how fast its CPUs run.

    From /proc/stat minus the engine's processes and this one; the kernel counts in ticks of 10 ms, enough for a trial.
    """

    def __init__(self, process_ids: Iterable[int]) -> None:
        self._processes = [psutil.Process()]
        for pid in process_ids:
            with suppress(psutil.Error):  # a helper that has just ended
                self._processes.append(psutil.Process(pid))
        self._start = self._read()

    def _read(self) -> tuple[float, float, float, float]:
        """(seconds used by anyone, seconds used by us, seconds stolen by the hypervisor, wall seconds)"""
        machine = psutil.cpu_times()
        busy = sum(machine) - machine.idle - getattr(machine, "iowait", 0.0) - getattr(machine, "guest", 0.0)
        own = 0.0
        for process in self._processes:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            own += times.user + times.system
        return busy, own, getattr(machine, "steal", 0.0), time.monotonic()

    def since_last(self) -> Row:
        """`foreign_cpu`, `steal_cpu` and `cpu_mhz` (tables.REQUESTS) since the last call; shares are None for spans too short to tell."""
        busy, own, steal, span = (after - before for after, before in zip(self._read(), self._start, strict=True))
        self._start = self._read()
        shares: list[float | None] = [None, None]
        if span > 0.05:
            cpu_s = span * (psutil.cpu_count() or 1)
            shares = [max(0.0, busy - own) / cpu_s, steal / cpu_s]
        frequency = psutil.cpu_freq()
        return {"foreign_cpu": shares[0], "steal_cpu": shares[1], "cpu_mhz": frequency.current if frequency and frequency.current else None}


def run_replicate(session: Session, job: Job, replicate: int, first_order: int, on_trial: Callable[[list[Row]], None]) -> list[Row]:
    """The trials of one fresh engine: a fixed number, or until the median TTFT is known as precisely as `trials` asks.

    ``on_trial`` is called with the rows of each finished trial.
    """
    rows: list[Row] = []
    lengths = (job.lengths.A, job.lengths.B, job.lengths.Q)
    load = Load(session.process_ids())
    keys = {"phase": job.phase, "engine": job.engine, "interface": job.interface}
    keys |= {"sweep": job.sweep, "variant": job.variant, "configuration": job.configuration}
    keys |= {"state": job.state, "model": job.model.name}
    burn_in, asked = job.protocol.burn_in, job.protocol.trials
    valid_ms: list[float] = []
    for trial in range(burn_in + most_trials(asked)):
        prompts = draw_trial(lengths, job.state, job.model.vocabulary, job.protocol.seed, replicate, trial, job.protocol.content)
        done = run_trial(session, prompts, job)
        machine = load.since_last()
        for row in done:
            row |= keys | machine | {"replicate": replicate, "trial": trial, "burn_in": trial < burn_in}
            row |= {"order": first_order + len(rows)}
            rows.append(row)
        on_trial(done)
        if trial >= burn_in and not any(row["rejection"] for row in done) and done[-1]["ttft_ms"] is not None:
            valid_ms.append(done[-1]["ttft_ms"])
        if isinstance(asked, Until) and len(valid_ms) >= asked.min and precise_enough(valid_ms, asked.precision):
            break
    return rows


def most_trials(asked: int | Until) -> int:
    """The number of trials after burn-in that a replicate has at most."""
    return asked.max if isinstance(asked, Until) else asked


def as_frame(rows: list[Row]) -> pl.DataFrame:
    """Rows as the raw table; see tables.REQUESTS."""
    return pl.DataFrame(rows, schema=schema(REQUESTS))


def check_rejected(rows: list[Row], job: Job) -> None:
    """Raises ColdprefixError, with a table that shows why, if more trials were rejected than `max_rejected` allows."""
    counted = [row for row in rows if not row["burn_in"]]
    rejected = {(row["replicate"], row["trial"]) for row in counted if row["rejection"]}
    total = len({(row["replicate"], row["trial"]) for row in counted})
    if len(rejected) <= job.protocol.max_rejected * total:
        return
    lines = [f"  {'trial':>5}  {'step':<7} {'prompt':>6} {'intended':>8} {'reused':>6} {'evaluated':>9}  why"]
    bad = [row for row in counted if row["rejection"]]
    for row in bad[:12]:
        cells = [row["intended_cached_tokens"], row["cached_tokens"], row["evaluated_tokens"]]
        intended, cached, evaluated = ("-" if cell is None else cell for cell in cells)
        lines.append(
            f"  {row['trial']:>5}  {row['step']:<7} {row['prompt_tokens']:>6} {intended:>8} {cached:>6} {evaluated:>9}  {row['rejection']}"
        )
    if len(bad) > 12:
        lines.append(f"  ... and {len(bad) - 12} more requests")
    raise ColdprefixError(
        f"{job.cell}: {len(rejected)} of {total} trials are not what they were meant to be; max_rejected allows "
        f"{job.protocol.max_rejected:.0%}\n" + "\n".join(lines)
    )
