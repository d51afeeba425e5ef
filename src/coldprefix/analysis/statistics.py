"""Intervals over engine processes, by Student's t.

Trials of one engine process share its start (where the heap lies, how threads were placed) and its minutes. So the unit is the process:
its trials give one median, or one ratio of medians, and an interval is that of the mean over processes (Kalibera and Jones 2013,
"Rigorous benchmarking in reasonable time"; Student 1908 for few of them). Two states that are compared are partners in one process, so what
the process and the minutes do to both cancels. benchmarks/coverage.py shows how often such intervals hold the truth. Where processes ran on
several machines, the machine is a block (machines.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coldprefix.analysis.machines import MACHINE, like_these, machines_of, over_machines

CONFIDENCE = 0.95
FEWEST_PROCESSES = 3
FEWEST_TRIALS = 6

Values = NDArray[np.float64]
Scale = Literal["log", "linear"]
UNIT = ["engine_process"]
BLOCK = ["engine_process", "job", "process"]  # partners within it were measured seconds apart


@dataclass(frozen=True)
class Estimate:
    """A value over processes with its 95 % interval, None where there are too few for one.

    Attributes:
        n: valid trials that have a value.
        processes: engine processes that they come from.
        value: mean over processes; on a log scale the geometric mean of the processes' medians.
        sd: between processes: as a share of the value on a log scale (0.03: 3 %), else in its unit; None below two.
        low, high: None below FEWEST_PROCESSES processes or FEWEST_TRIALS trials.
        units: the processes' own values.
        machines: that the processes ran on; `value`, `sd`, `low` and `high` are then over machines (machines.py).
        like_low, like_high: the interval on a machine like these; None below three machines.
        blocked_df: of the interval over several machines.
    """

    n: int
    processes: int
    value: float | None
    sd: float | None
    low: float | None
    high: float | None
    units: tuple[float, ...] = ()
    machines: int = 1
    like_low: float | None = None
    like_high: float | None = None
    blocked_df: int | None = None

    @property
    def df(self) -> int | None:
        """Degrees of freedom of the interval, of several machines those of the one with the fewest processes; None without one."""
        if self.low is None:
            return None
        return self.processes - 1 if self.blocked_df is None else self.blocked_df


NOTHING = Estimate(0, 0, None, None, None, None)


def student(
    values: Sequence[float], n: int | None, scale: Scale = "linear", confidence: float = CONFIDENCE, machines: Sequence[str] = ()
) -> Estimate:
    """The mean of the processes' values and its interval.

    Args:
        values: one for each process; on a log scale positive.
        n: trials that they were made from; None: they stand for themselves, and their number alone decides whether there is an interval.
        machines: that the processes ran on, one for each; none: all on one.
    """
    from scipy.stats import t

    if not len(values):
        return NOTHING
    x = np.log(values) if scale == "log" else np.asarray(values, dtype=float)
    back = math.exp if scale == "log" else float
    if len(set(machines)) > 1:
        return _blocked(x, n, back, confidence, machines, tuple(float(v) for v in values))
    mean, count = float(np.mean(x)), len(x)
    sd = float(np.std(x, ddof=1)) if count > 1 else None
    low = high = None
    if sd is not None and count >= FEWEST_PROCESSES and (n is None or n >= FEWEST_TRIALS):
        half = float(t.ppf((1 + confidence) / 2, count - 1)) * sd / math.sqrt(count)
        low, high = back(mean - half), back(mean + half)
    return Estimate(count if n is None else n, count, back(mean), sd, low, high, tuple(float(v) for v in values))


def _blocked(
    x: Values, n: int | None, back: Callable[[float], float], confidence: float, machines: Sequence[str], units: tuple[float, ...]
) -> Estimate:
    """`student` of processes of several machines; ``back`` leads from the scale of ``x`` to that of the values."""
    over = over_machines(x, machines, confidence)
    enough = len(x) >= FEWEST_PROCESSES and (n is None or n >= FEWEST_TRIALS)

    def ends(half: float | None) -> tuple[float | None, float | None]:
        return (None, None) if half is None or not enough else (back(over.mean - half), back(over.mean + half))

    like = ends(like_these(over.means, confidence))
    count = len(x) if n is None else n
    return Estimate(count, len(x), back(over.mean), over.sd, *ends(over.half), units, len(over.means), *like, over.df)


def medians(trials: pl.DataFrame, column: str, by: Sequence[str] = UNIT) -> pl.DataFrame:
    """One row per process (``by``) with its "median" of ``column`` and the number "n" of trials that have one."""
    known = trials.drop_nulls(column)
    return known.group_by(list(by), maintain_order=True).agg(median=pl.col(column).median().cast(pl.Float64), n=pl.len())


def scale_of(values: Sequence[float]) -> Scale:
    """Times are compared by ratios; what can be zero or negative, as a difference or a count can, is not."""
    return "log" if len(values) and min(values) > 0 else "linear"


def estimate(trials: pl.DataFrame, column: str, scale: Scale | None = None, confidence: float = CONFIDENCE) -> Estimate:
    """A column's median over processes, from the trials of one cell that count."""
    found = medians(trials, column)
    values = found["median"].to_list()
    return student(values, int(found["n"].sum()), scale or scale_of(values), confidence, machines_of(found["engine_process"]))


def paired(state: pl.DataFrame, baseline: pl.DataFrame, column: str) -> pl.DataFrame:
    """Blocks in which both were measured: engine_process, "median" and "base", and the smaller "n" of the two."""
    one, other = medians(state, column, BLOCK), medians(baseline, column, BLOCK).rename({"median": "base", "n": "n_base"})
    return one.join(other, on=BLOCK, how="inner", maintain_order="left").with_columns(n=pl.min_horizontal("n", "n_base"))


def _over_blocks(pairs: pl.DataFrame, effect: pl.Expr, scale: Scale, confidence: float) -> Estimate:
    """Blocks of one process are averaged: cells of a shared server see the same process."""
    if pairs.is_empty():
        return NOTHING
    x = effect.log() if scale == "log" else effect
    found = pairs.group_by("engine_process", maintain_order=True).agg(x.mean().alias("x"))
    units, machines = found["x"].to_numpy(), machines_of(found["engine_process"])
    return student((np.exp(units) if scale == "log" else units).tolist(), int(pairs["n"].sum()), scale, confidence, machines)


def ratio(state: pl.DataFrame, baseline: pl.DataFrame, column: str = "ttft_ms", confidence: float = CONFIDENCE) -> Estimate:
    """Median of ``column`` of one state over that of its partner in the same process, over processes. Empty where they are no partners."""
    pairs = paired(state, baseline, column).filter((pl.col("median") > 0) & (pl.col("base") > 0))
    return _over_blocks(pairs, pl.col("median") / pl.col("base"), "log", confidence)


def difference(
    state: pl.DataFrame, baseline: pl.DataFrame, column: str = "ttft_ms", per: str | None = None, confidence: float = CONFIDENCE
) -> Estimate:
    """Median of one state minus that of its partner in the same process, over processes; ``per``: divided by the difference of that
    column's medians (ms per computed token)."""
    pairs = paired(state, baseline, column)
    effect = pl.col("median") - pl.col("base")
    if per is not None:
        counts = paired(state, baseline, per).select(*BLOCK, tokens=pl.col("median") - pl.col("base")).filter(pl.col("tokens") != 0)
        pairs = pairs.join(counts, on=BLOCK, how="inner", maintain_order="left")
        effect = effect / pl.col("tokens")
    return _over_blocks(pairs, effect, "linear", confidence)


def apart(one: pl.DataFrame, other: pl.DataFrame, column: str, confidence: float = CONFIDENCE) -> Estimate:
    """Median in ``one`` over that in ``other``, which were measured in different jobs or runs: Welch's t on the processes' log medians, and
    paired where both visited the same processes. What minutes between them do is not in the interval.

    Machine by machine where there are several: those on which only one was measured say nothing, and without a common one there is no value.
    """
    a, b = ({machine: own for (machine,), own in medians(side, column).group_by(MACHINE, maintain_order=True)} for side in (one, other))
    found = [_apart_on_one(a[machine], b[machine], confidence) for machine in a if machine in b]
    return found[0] if len(found) == 1 else _over(found)


def _apart_on_one(a: pl.DataFrame, b: pl.DataFrame, confidence: float) -> Estimate:
    both = a.join(b.rename({"median": "base", "n": "n_base"}), on="engine_process", how="inner", maintain_order="left")
    n = min(int(a["n"].sum()), int(b["n"].sum()))
    if both.height and both.height == a.height == b.height:
        return student((both["median"] / both["base"]).to_list(), n, "log", confidence)
    return welch(a["median"].to_list(), b["median"].to_list(), n, confidence)


def _over(ratios: Sequence[Estimate]) -> Estimate:
    """The geometric mean of the machines' ratios; its interval from theirs, as in machines.py."""
    known = [found for found in ratios if found.value]
    if not known:
        return NOTHING
    log = float(np.mean([math.log(found.value) for found in known if found.value]))
    low = high = None
    ends = [(found.low, found.high) for found in known if found.low and found.high]
    if len(ends) == len(known):
        half = math.sqrt(sum((math.log(end / start) / 2) ** 2 for start, end in ends)) / len(known)
        low, high = math.exp(log - half), math.exp(log + half)
    n, processes = (sum(getattr(found, name) for found in known) for name in ("n", "processes"))
    return Estimate(n, processes, math.exp(log), None, low, high, machines=len(known))


def welch(one: Sequence[float], other: Sequence[float], n: int, confidence: float = CONFIDENCE) -> Estimate:
    """Ratio of the geometric means of two independent samples of processes, with Welch's interval."""
    from scipy.stats import t

    if not len(one) or not len(other) or min(*one, *other) <= 0:
        return NOTHING
    x, y = np.log(one), np.log(other)
    mean = float(x.mean() - y.mean())
    low = high = sd = None
    fewest = min(len(x), len(y))
    if fewest >= FEWEST_PROCESSES and n >= FEWEST_TRIALS:
        parts = [float(np.var(v, ddof=1)) / len(v) for v in (x, y)]
        sd = math.sqrt(sum(parts))
        if sd > 0:
            df = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (x, y), strict=True) if part)
            half = float(t.ppf((1 + confidence) / 2, df)) * sd
        else:
            half = 0.0
        low, high = math.exp(mean - half), math.exp(mean + half)
    return Estimate(n, fewest, math.exp(mean), sd, low, high)


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The exact 95 % interval of the median of independent values, in their unit: order statistics whose ranks the binomial distribution
    gives (e.g. Hahn and Meeker, Statistical Intervals, 5.2). None below six values."""
    from scipy.stats import binom

    ordered, n = sorted(values), len(values)
    rank = int(binom.ppf((1 - CONFIDENCE) / 2, n, 0.5)) if n else 0  # counted from 1
    return (ordered[rank - 1], ordered[n - rank]) if rank else None
