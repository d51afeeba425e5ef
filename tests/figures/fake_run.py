"""A run that was never measured: all cells of a configuration on null engines that follow a law."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from conftest import Values, with_values
from null_engine import NullSession

from coldprefix.analysis.summary import summary_of, trials_of
from coldprefix.data import tables
from coldprefix.data.raw import as_frame
from coldprefix.engines.contract import Completion
from coldprefix.figures import style
from coldprefix.job import Job
from coldprefix.measure import protocol
from coldprefix.study.checks import parse
from coldprefix.study.plan import job_of

PROCESSES, TRIALS = 3, 3


class Timed(NullSession):
    """Takes 5 ms and 0.1 ms for each token it computes; with ``noise``, its process and each answer are off by such a share."""

    def __init__(self, job: Job, process: int, noise: float) -> None:
        kind, block = ("slot", 1) if job.engine == "llamacpp" else ("pool", 128)
        super().__init__(kind, block, process=f"{job.cell} {process}")  # type: ignore[arg-type]
        self.random = np.random.default_rng([process, *job.cell.encode()])
        self.noise = noise
        self.pace = 1 + noise * float(self.random.standard_normal())

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        done = super().complete(prompt, max_tokens, stream)
        own = (4 + 0.1 * (done.evaluated_tokens or 0)) * self.pace
        off = self.noise * float(self.random.standard_normal())
        first = own + 1 + 5 * abs(off) + (10 * off if stream else 0)
        times = [first + 2.0 * i for i in range(max_tokens)]
        return dataclasses.replace(done, total_ms=times[-1], token_times_ms=times if stream else [], engine_prompt_ms=own)


def requests(values: Values, changes: Values, noise: float = 0.0) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """tables.REQUESTS and a provenance record per cell: a slot for llama.cpp, a block pool for vLLM."""
    config = parse(with_values(values, {"settle_ms": 0, "processes": PROCESSES, "trials": TRIALS, "burn_in": 1} | changes))
    rows: list[protocol.Row] = []
    provenance = []
    for cell in config.all_cells():
        job = job_of(config, cell)
        assert isinstance(job.protocol.processes, int)
        for process in range(job.protocol.processes):
            rows += protocol.run_process(Timed(job, process, noise), job, process, 0, lambda _: None)
        host = {"cpu": "Some CPU @ 3 GHz", "gpus": []}
        provenance.append({"host": host, "job": job.model_dump(mode="json"), "in_force": job.settings})
    return as_frame(rows), provenance


def tables_of(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(tables.TRIALS, tables.SUMMARY)"""
    trials = trials_of(rows.lazy()).collect().cast(tables.schema(tables.TRIALS))
    return trials, summary_of(trials)


def measured(values: Values, phases: Sequence[str], experiments: Sequence[str], noise: float = 0.0) -> style.Measured:
    """What a figure is drawn from; measured once for all tests that ask the same."""
    made = _measured(json.dumps(values, sort_keys=True), tuple(phases), tuple(experiments), noise)
    return dataclasses.replace(made, provenance=copy.deepcopy(made.provenance))


@cache
def _measured(values: str, phases: tuple[str, ...], experiments: tuple[str, ...], noise: float) -> style.Measured:
    rows, provenance = requests(json.loads(values), {"phases": list(phases), "experiments": list(experiments)}, noise)
    return style.Measured(*tables_of(rows), provenance)
