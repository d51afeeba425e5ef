"""A/A in every run, at no cost: the same computation measured in two places must come out the same.

If the 95 % intervals are what they say, one comparison in twenty leaves 1 out. Where more do, the intervals are too narrow on this machine
at this hour, and every other interval of the run is suspect in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import polars as pl

from coldprefix.analysis import statistics
from coldprefix.analysis.machines import MACHINE
from coldprefix.analysis.statistics import Estimate
from coldprefix.analysis.summary import BASELINE

# Columns of tables.TRIALS that it needs: it reads all trials of a run at once.
USED = ["phase", "variant", "configuration", "state", "job", "process", "engine_process", "valid", "content", "warmup_ms", "ttft_ms"]
USED += ["warmup_prompt_tokens", "warmup_cached_tokens", "stream_cached_tokens", "stream_evaluated_tokens", "foreign_tokens"]
NOMINAL = 1 - statistics.CONFIDENCE
SELF_CHECK: dict[str, tuple[pl.DataType, str]] = {
    "backend": (pl.String(), "the phase"),
    "quantity": (pl.String(), "what both computed: KIND with the tokens computed and reused"),
    "cell_one": (pl.String(), "the job that measured it"),
    "cell_other": (pl.String(), "another job that did"),
    "ratio": (pl.Float64(), "of the first over that of the other; 1 is the truth"),
    "low": (pl.Float64(), "lower end of its 95 % interval over processes"),
    "high": (pl.Float64(), "upper end"),
    "contains_one": (pl.Boolean(), "does the interval hold the truth?"),
}


def self_check(trials: pl.DataFrame) -> pl.DataFrame:
    """All natural A/A comparisons of a run (SELF_CHECK).

    - "effect": the ratio of two states as the job of the one and the job of the other have measured it;
    - "warmup" and "ttft": times of the same computation (as many tokens computed and reused) in different jobs of a backend under the
      same settings. Jobs are minutes apart, and what the machine does between them is not in an interval over one job's processes.

    Args:
        trials: tables.TRIALS. Only trials with fresh prompts that are valid are used.
    """
    valid = trials.filter("valid", pl.col("content") == "fresh")
    # On one machine each: 1 is the truth nowhere else.
    of_machines = [own for _, own in valid.group_by(MACHINE, maintain_order=True)]
    rows = [_row(*found) for own in of_machines for found in [*_effects(own), *_times(own)]]
    return pl.DataFrame([row for row in rows if row], schema={name: dtype for name, (dtype, _) in SELF_CHECK.items()})


def _effects(valid: pl.DataFrame) -> Iterator[tuple[str, str, str, str, Estimate]]:
    for (phase, _, configuration), cells in valid.group_by("phase", "variant", "configuration", maintain_order=True):
        by_job = {job: own for (job,), own in cells.group_by("job", maintain_order=True)}
        for state in cells["state"].unique(maintain_order=True).to_list():
            if state == BASELINE:
                continue
            for one, other in combinations(by_job, 2):
                logs = [_ratio_blocks(by_job[job], state) for job in (one, other)]
                a, b = (dict(found) for found in logs)
                n = min(by_job[one].height, by_job[other].height)
                if a and a.keys() == b.keys():
                    found = statistics.student([a[unit] / b[unit] for unit in a], n, "log")
                else:
                    found = statistics.welch(list(a.values()), list(b.values()), n)
                yield str(phase), f"effect {state}/{BASELINE} {configuration}", one, other, found


def _ratio_blocks(job: pl.DataFrame, state: str) -> list[tuple[str, float]]:
    """(process, ratio of the state over the baseline) in one job."""
    own, base = (job.filter(pl.col("state") == wanted) for wanted in (state, BASELINE))
    return [(row["engine_process"], row["median"] / row["base"]) for row in statistics.paired(own, base, "ttft_ms").iter_rows(named=True)]


def _times(valid: pl.DataFrame) -> Iterator[tuple[str, str, str, str, Estimate]]:
    """Variants that change an engine's settings are not compared with each other: only what has the same one, or the main experiment."""
    alone = valid.filter(
        pl.col("foreign_tokens") == 0
    )  # after other prompts a reuse may be a restore from host memory: another computation
    cold = pl.col("warmup_prompt_tokens") - pl.col("warmup_cached_tokens")
    quantities = {
        "warmup": valid.with_columns(computed=cold, reused=pl.col("warmup_cached_tokens"), ms=pl.col("warmup_ms")),
        "ttft": alone.with_columns(computed=pl.col("stream_evaluated_tokens"), reused=pl.col("stream_cached_tokens"), ms=pl.col("ttft_ms")),
    }
    for name, table in quantities.items():
        same = ["phase", "variant", "computed", "reused"]
        known = table.drop_nulls(["computed", "reused", "ms"])
        for (phase, _, computed, reused), trials in known.group_by(same, maintain_order=True):
            by_job = {job: own for (job,), own in trials.group_by("job", maintain_order=True)}
            for one, other in combinations(by_job, 2):
                found = statistics.apart(by_job[one], by_job[other], "ms")
                yield str(phase), f"{name} {computed}+{reused}", one, other, found


def _row(phase: str, quantity: str, one: str, other: str, found: Estimate) -> dict[str, Any] | None:
    if found.low is None or found.high is None:
        return None
    named = {"backend": phase, "quantity": quantity, "cell_one": one, "cell_other": other}
    return named | {"ratio": found.value, "low": found.low, "high": found.high, "contains_one": found.low <= 1 <= found.high}


def text(found: pl.DataFrame) -> str:
    """The false-alarm rate by backend and kind of quantity, for the terminal; "" without comparisons."""
    if found.is_empty():
        return ""
    lines = [f"A/A: the same computation in two places, intervals that leave 1 out (nominal {NOMINAL:.0%})"]
    kinds = found.with_columns(kind=pl.col("quantity").str.split(" ").list.first())
    for (kind,), rows in kinds.group_by("kind", maintain_order=True):
        shown = [f"{phase} {_rate(own)}" for (phase,), own in rows.group_by("backend", maintain_order=True)]
        lines.append(f"  {kind:<8} {_rate(rows)}: {', '.join(shown)}")
    return "\n".join([*lines, f"  all      {_rate(found)}"]) + "\n"


def _rate(rows: pl.DataFrame) -> str:
    alarms = int((~rows["contains_one"]).sum())
    return f"{alarms} of {rows.height} ({alarms / rows.height:.0%})"
