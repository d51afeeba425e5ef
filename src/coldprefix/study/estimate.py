"""What a study will take, before anything runs: cells x processes x the seconds of a process, from an earlier run's provenance where there is one."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldprefix.job import Job
from coldprefix.measure.stopping import fewest_and_most
from coldprefix.study.plan import Plan

PROCESS_S = 20.0  # of an engine process of which nothing is known: its start and its trials
JOB_S = 5.0  # beside its processes


@dataclass(frozen=True)
class Known:
    """What a measured cell took: seconds of its job beside its processes (imports), of a process beside its trials (its start), and of a trial
    with its pauses."""

    job_s: float
    process_s: float
    trial_s: float


@dataclass(frozen=True)
class Cost:
    """What a cell will take.

    Attributes:
        fewest_s, most_s: with the fewest and the most processes that the configuration allows.
        source: "this cell", "its backend" or "default": whose times they are made from.
    """

    fewest_s: float
    most_s: float
    source: str


def read_earlier(raw: Path) -> list[Mapping[str, Any]]:
    """The records below a folder of raw data that can be read; what is wrong with others is said where they are used."""
    found = []
    for file in sorted(raw.rglob("provenance.json")):
        try:
            record = json.loads(file.read_text())
            if record["wall_s"] and record["engine_start_s"]:
                found.append(record)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def _trials(job: Job) -> int:
    """Of one process."""
    return (job.protocol.burn_in + job.protocol.trials) * len(job.kinds)


def _known(record: Mapping[str, Any]) -> Known:
    job = Job.model_validate(record["job"])
    processes = len(record["engine_start_s"])
    in_trials = record["engine_busy_s"] + record["settle_s"]
    beside = max(0.0, record["job_s"] - record["wall_s"])
    return Known(beside, max(0.0, record["wall_s"] - in_trials) / processes, in_trials / (processes * _trials(job)))


def cost_of(job: Job, of_cell: Known | None, of_phase: Sequence[Known]) -> Cost:
    """What a cell will take, by itself measured before, else by its backend's medians, else by PROCESS_S."""
    known = of_cell
    if known is None and of_phase:
        known = Known(*(statistics.median(getattr(k, name) for k in of_phase) for name in ("job_s", "process_s", "trial_s")))
    job_s, each = (JOB_S, PROCESS_S) if known is None else (known.job_s, known.process_s + known.trial_s * _trials(job))
    fewest, most = fewest_and_most(job.protocol.processes)
    return Cost(job_s + fewest * each, job_s + most * each, "this cell" if of_cell else "its backend" if of_phase else "default")


def costs(plan: Plan, earlier: Sequence[Mapping[str, Any]]) -> dict[str, Cost]:
    """By cell."""
    known: dict[str, Known] = {}
    by_phase: dict[str, list[Known]] = {}
    for record in earlier:
        job = record["job"]
        cell = "/".join([job["phase"], *([] if job["variant"] == "main" else [job["variant"]]), job["configuration"], job["state"]])
        found = _known(record)
        by_phase.setdefault(job["phase"], []).append(found)
        if cell in plan.jobs and plan.jobs[cell].model.name == job["model"]["name"]:
            known[cell] = found
    return {cell: cost_of(job, known.get(cell), by_phase.get(job.phase, [])) for cell, job in plan.jobs.items()}


def text(plan: Plan, earlier: Sequence[Mapping[str, Any]]) -> str:
    """The table for the terminal."""
    found = costs(plan, earlier)
    if earlier:
        cpus = " and ".join(dict.fromkeys(str(record["host"]["cpu"]) for record in earlier))
        begin = (
            f"from the provenance of {len(earlier)} cells in results/raw, measured on {cpus}; it holds for that machine and these models"
        )
    else:
        begin = f"nothing was measured here yet: each engine process is taken for {PROCESS_S:.0f} s, which is a guess; measure a few cells first"
    lines = [f"coldprefix: what this configuration will take, {begin}", ""]
    lines.append(f"{'backend':<10}{'cells':>7}{'processes':>12}{'minutes':>16}  from")
    for phase in [*plan.phases, "all"]:
        own = {cell: cost for cell, cost in found.items() if phase in ("all", plan.jobs[cell].phase)}
        ranges = [fewest_and_most(plan.jobs[cell].protocol.processes) for cell in own]
        processes = _span(sum(low for low, _ in ranges), sum(high for _, high in ranges), 0)
        minutes = _span(sum(c.fewest_s for c in own.values()) / 60, sum(c.most_s for c in own.values()) / 60, 1)
        sources = [cost.source for cost in own.values()]
        told = ", ".join(f"{source} {sources.count(source)}" for source in dict.fromkeys(sources))
        lines.append(f"{phase:<10}{len(own):>7}{processes:>12}{minutes:>16}  {told}")
    low, high = (sum(getattr(cost, name) for cost in found.values()) / 3600 for name in ("fewest_s", "most_s"))
    longest = max(cost.most_s for cost in found.values()) / 60
    lines += [
        "",
        f"node-hours: {_span(low, high, 2)}; on N nodes that many hours / N, but never less than the longest cell: {longest:.1f} minutes",
    ]
    lines.append(
        "Not in it: setup, calibration, peers, figures; a cluster's queue, and what its scheduler adds to each job (docs/slurm.md)."
    )
    return "\n".join(lines) + "\n"


def _span(low: float, high: float, digits: int) -> str:
    one, other = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return one if one == other else f"{one} to {other}"
