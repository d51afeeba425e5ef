"""The machine as a block: values of processes that ran on several machines.

Processes of one machine share it, so they are no sample of all machines' processes. The value over several machines is the mean of the
machines' own means, each of equal weight, and there are two intervals, for two questions:

- on *these* machines: the machines' own t intervals put together, half-width sqrt(sum of (t_m s_m)^2 / n_m) / M (Banerjee 1961,
  "On confidence interval for two-means problem based on separate estimates of variances", Sankhya A 23), which holds the truth at least as
  often as it says whatever the machines' spreads are; with one machine it is Student's;
- on a machine *like these*: Student's t over the machines' means, which holds for unequal spreads as well (Ibragimov and Mueller 2010,
  "t-statistic based correlation and heterogeneity robust inference"), if the machines are a sample of those that one speaks of.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

MARK = re.compile(r"^([0-9a-f]{16}):")
MACHINE = pl.col("engine_process").str.extract(MARK.pattern).fill_null("").alias("machine")
FEWEST_MACHINES = 3  # for an interval over machines


@dataclass(frozen=True)
class Over:
    """A mean over machines.

    Attributes:
        mean: of the machines' means.
        sd: between processes of a machine, of all machines together; None where none has two processes.
        half: half of the interval on these machines; None where a machine has one process only.
        df: degrees of freedom of the machine with the fewest processes.
        means: of each machine.
    """

    mean: float
    sd: float | None
    half: float | None
    df: int
    means: tuple[float, ...]


def machine_of(process: str) -> str:
    """The machine of an `engine_process`; "" where it names none."""
    found = MARK.match(process)
    return found[1] if found else ""


def machines_of(processes: Iterable[str]) -> list[str]:
    """Those of several."""
    return [machine_of(process) for process in processes]


def over_machines(x: NDArray[np.float64], machines: Sequence[str], confidence: float) -> Over:
    """The mean of values, one for each process, whose machines are named beside them."""
    from scipy.stats import t

    groups = [x[[name == machine for name in machines]] for machine in dict.fromkeys(machines)]
    means = tuple(float(np.mean(group)) for group in groups)
    freedom = [len(group) - 1 for group in groups]
    squares = sum(float(np.var(group, ddof=1)) * (len(group) - 1) for group in groups if len(group) > 1)
    half = None
    if min(freedom) >= 1:
        parts = [float(t.ppf((1 + confidence) / 2, len(group) - 1)) ** 2 * float(np.var(group, ddof=1)) / len(group) for group in groups]
        half = math.sqrt(sum(parts)) / len(groups)
    return Over(float(np.mean(means)), math.sqrt(squares / sum(freedom)) if sum(freedom) else None, half, min(freedom), means)


def like_these(means: Sequence[float], confidence: float) -> float | None:
    """Half of the interval of the mean on a machine like these; None below FEWEST_MACHINES."""
    from scipy.stats import t

    if len(means) < FEWEST_MACHINES:
        return None
    return float(t.ppf((1 + confidence) / 2, len(means) - 1)) * float(np.std(means, ddof=1)) / math.sqrt(len(means))
