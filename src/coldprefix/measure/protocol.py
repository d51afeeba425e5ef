"""The protocol of a trial, step by step, and the trials of one engine process: its own and its partners', in random order."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from coldprefix.engines.contract import Completion, Session
from coldprefix.errors import ColdprefixError, EngineRefusal
from coldprefix.job import Job, Kind, common_prefix
from coldprefix.measure.load import Load
from coldprefix.measure.prompts import TrialPrompts, draw_trial, prompt_hash
from coldprefix.measure.verify import intended_reuse, rejection
from coldprefix.process.identity import machine

Row = dict[str, Any]
STRIDE = 16  # numbers of prompts in a round: what a job's own trials are sent does not depend on which partners it has
LOOKED_AT = ("query", "stream")  # steps that a pause precedes, since their times are what a trial is for
# Tokens that a partner's streaming query generates: it is there for its time to first token. More than 2, since vLLM sends the last two
# of a stream close together: where a step takes a millisecond they came as one chunk, and the first token's time was not known.
PARTNER_TOKENS = 4


def run_trial(session: Session, prompts: TrialPrompts, job: Job, stream_tokens: int) -> list[Row]:
    """One trial: warm up, settle, query, re-warm, settle, stream; without the warm-ups where nothing is to be warm, and with other prompts
    before query and stream where the state says so.

    The query generates one token and is not streamed; the stream generates ``stream_tokens`` and gives TTFT and throughput.

    Returns:
        One row per request, without the cell's keys.
    """
    protocol = job.protocol
    if protocol.reset == "trial":
        session.reset()
    rows = []
    warm = session.seen(prompts.warm) if prompts.warm else []
    meant: list[list[int]] = []  # what the state is meant against, since the last warm-up
    memory = session.memory()
    for step, prompt, max_tokens in steps_of(prompts, stream_tokens):
        stream = step == "stream"
        seen = session.seen(prompt)
        if protocol.content == "repeated":  # whatever else the engine still knows
            memory = session.memory()
            for earlier in [warm, *meant] if warm else meant:
                memory.ask(earlier, 1)
        meant = [*meant, seen] if step == "foreign" else [] if step == "rewarm" else meant
        intended = intended_reuse(step, memory.ask(seen, max_tokens), bool(warm), protocol)
        if step in LOOKED_AT:
            time.sleep(protocol.settle_ms / 1e3)
        try:
            done = session.complete(prompt, max_tokens, stream)
            why = rejection(done, len(seen), intended, max_tokens, stream)
            if why is None and prompts.keeps and step in LOOKED_AT and intended and not intended.most:
                why = f"of {common_prefix(warm, seen)} tokens in common the engine's rule reuses none, so this is no hit"
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
                "intended_cached_tokens": intended.least if intended and intended.least == intended.most else None,
                "reusable_cached_tokens": min(common_prefix(warm, seen), len(seen) - 1),
                "cached_tokens": done.cached_tokens,
                "evaluated_tokens": done.evaluated_tokens,
                "generated_tokens": done.generated_tokens,
                "connect_ms": done.connect_ms,
                "ttft_ms": done.ttft_ms,
                "total_ms": done.total_ms,
                "token_times_ms": done.token_times_ms,
                "engine_prompt_ms": done.engine_prompt_ms,
                "engine_ttft_ms": done.engine_ttft_ms,
                "rejection": why,
                "started_at": datetime.fromtimestamp(done.started_at, UTC),
            }
        )
    return rows


def steps_of(prompts: TrialPrompts, stream_tokens: int) -> list[tuple[str, list[int], int]]:
    """The requests of a trial in order: step, prompt, and tokens that are generated."""
    warmup, rewarm = ([(step, prompts.warm, 1)] if prompts.warm else [] for step in ("warmup", "rewarm"))
    before, between = ([("foreign", prompt, 1) for prompt in sent] for sent in (prompts.before_query, prompts.before_stream))
    return [*warmup, *before, ("query", prompts.query, 1), *rewarm, *between, ("stream", prompts.stream, stream_tokens)]


def order_of(job: Job, process: int, trial: int) -> list[int]:
    """The places of the job's kinds in the order in which round ``trial`` measures them: seeded, another for each job, process and round."""
    seed = [job.protocol.seed, zlib.crc32(job.cell.encode()), process, trial]
    return [int(place) for place in np.random.default_rng(seed).permutation(len(job.kinds))]


def run_process(
    session: Session, job: Job, process: int, first_order: int, on_trial: Callable[[list[Row]], None], workflow: int | None = None
) -> list[Row]:
    """The trials of one engine process: rounds, each with a trial of every kind of the job (partners of one process: their start-up and
    whatever the machine does meanwhile are the same for both).

    Args:
        on_trial: is called with the rows of each finished trial.
        workflow: process id of Snakemake, whose load is told apart.
    """
    rows: list[Row] = []
    load = Load(session.process_ids(), workflow)
    keys: Row = {"phase": job.phase, "engine": job.engine, "interface": job.interface, "sweep": job.sweep, "variant": job.variant}
    keys |= {"model": job.model.name, "job": job.cell, "process": process, "engine_process": f"{machine()}:{session.identity}"}
    protocol = job.protocol
    stride = _stride(job)
    for trial in range(protocol.burn_in + protocol.trials):
        for place in order_of(job, process, trial):
            kind = job.kinds[place]
            number = trial * stride + place
            prompts = draw_trial(kind.lengths, kind.state, job.model.vocabulary, protocol.seed, process, number, protocol.content)
            own = is_own(job, kind)
            done = run_trial(session, prompts, job, protocol.stream_tokens if own else PARTNER_TOKENS)
            loaded = load.since_last()
            loaded = dict.fromkeys(loaded) if session.elsewhere else loaded
            for row in done:
                row |= keys | loaded | {"configuration": kind.configuration, "state": kind.state, "own": own}
                row |= {"trial": trial, "burn_in": trial < protocol.burn_in, "order": first_order + len(rows)}
                rows.append(row)
            on_trial(done)
    return rows


def _stride(job: Job) -> int:
    return max(STRIDE, len(job.kinds))


def first_free(job: Job) -> int:
    """The first number of a trial that no round of a process uses."""
    return (job.protocol.burn_in + job.protocol.trials) * _stride(job)


def is_own(job: Job, kind: Kind) -> bool:
    """Is a trial of this kind what the job is about, and not a partner's?"""
    return kind.state == job.state


def check_rejected(rows: list[Row], job: Job) -> None:
    """Raises ColdprefixError, with a table that shows why, if more trials were rejected than `max_rejected` allows."""
    counted = [row for row in rows if not row["burn_in"]]
    rejected = {_trial(row) for row in counted if row["rejection"]}
    total = len({_trial(row) for row in counted})
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


def _trial(row: Row) -> tuple[Any, ...]:
    return row["process"], row["trial"], row["configuration"], row["state"]
