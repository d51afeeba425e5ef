"""The protocol of a trial, step by step, and the trials of one engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from coldprefix.engines.contract import Completion, Session
from coldprefix.errors import ColdprefixError, EngineRefusal
from coldprefix.job import Job, Until
from coldprefix.measure.load import Load
from coldprefix.measure.prompts import TrialPrompts, common_prefix, draw_trial, prompt_hash
from coldprefix.measure.stopping import most_trials, precise_enough
from coldprefix.measure.verify import intended_reuse, rejection

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
        reusable = min(common_prefix(warm, seen), len(seen) - 1)  # an engine computes at least the last token
        intended = intended_reuse(step, reusable, protocol.content, protocol.reset, protocol.request_form, session.granularity)
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


def run_replicate(
    session: Session, job: Job, replicate: int, first_order: int, on_trial: Callable[[list[Row]], None], workflow: int | None = None
) -> list[Row]:
    """The trials of one fresh engine: a fixed number, or until the median TTFT is known as precisely as `trials` asks.

    Args:
        on_trial: is called with the rows of each finished trial.
        workflow: process id of Snakemake, whose load is told apart.
    """
    rows: list[Row] = []
    load = Load(session.process_ids(), workflow)
    keys = {"phase": job.phase, "engine": job.engine, "interface": job.interface}
    keys |= {"sweep": job.sweep, "variant": job.variant, "configuration": job.configuration}
    keys |= {"state": job.state, "model": job.model.name}
    burn_in, asked = job.protocol.burn_in, job.protocol.trials
    valid_ms: list[float] = []
    for trial in range(burn_in + most_trials(asked)):
        prompts = draw_trial(job.lengths, job.state, job.model.vocabulary, job.protocol.seed, replicate, trial, job.protocol.content)
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
