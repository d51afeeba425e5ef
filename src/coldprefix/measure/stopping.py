"""When a cell has enough trials: its median TTFT is known as precisely as asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import comb

from coldprefix.job import Until

CONFIDENCE = 0.95
FEWEST = 6  # below this no pair of order statistics holds the median with 95 %


@cache
def ranks(n: int) -> tuple[int, int] | None:
    """Ranks, counted from 0, of the order statistics that enclose the median of ``n`` values with at least 95 % confidence.

    The exact interval from the binomial distribution: of n independent values, each is below the median with probability 1/2
    (e.g. Hahn and Meeker, Statistical Intervals, 5.2). None where n is too small for any.
    """
    below, k = 0.0, 0  # probability that at most k - 1 values are below the median
    while k < n // 2:
        more = below + comb(n, k) / 2**n
        if 2 * more > 1 - CONFIDENCE:
            break
        below, k = more, k + 1
    return (k - 1, n - k) if k else None


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The interval of the median, of any unit; None where there are too few values."""
    found = ranks(len(values))
    if found is None:
        return None
    ordered = sorted(values)
    return ordered[found[0]], ordered[found[1]]


def precise_enough(values: Sequence[float], precision: float) -> bool:
    """Is the interval of the median no wider than ``precision`` times the median?

    Looking after every trial and stopping at the first yes makes intervals too narrow by chance more likely;
    benchmarks/stopping.py measures by how much.
    """
    interval = median_interval(values)
    if interval is None:
        return False
    ordered = sorted(values)
    median = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return interval[1] - interval[0] <= precision * median


def most_trials(asked: int | Until) -> int:
    """The number of trials after burn-in that a replicate has at most."""
    return asked.max if isinstance(asked, Until) else asked
