"""When a cell has enough processes: its effect is known as precisely as asked for."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from coldprefix.job import Until

FEWEST = 3  # processes that an interval needs
# Student's t, two-sided 95 %, for 2, 3, ... degrees of freedom (engines' environments have no scipy; tests compare with it).
T95 = (4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139, 2.200985, 2.178813, 2.160369, 2.144787)


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of the mean by Student's t, in the values' unit; None below three values."""
    if len(values) < FEWEST:
        return None
    t = T95[min(len(values) - FEWEST, len(T95) - 1)]  # beyond the table a little too wide
    return t * statistics.stdev(values) / math.sqrt(len(values))


def precise_enough(own_ms: Sequence[Sequence[float]], partner_ms: Sequence[Sequence[float]], precision: float) -> bool:
    """Is the 95 % interval over processes no wider than ``precision``, as a share of the value?

    Args:
        own_ms: TTFTs of the cell's own state, for each process.
        partner_ms: of its first partner; all empty where it has none. Then the interval is that of its own TTFT, else of their ratio.

    Looking after every process and stopping at the first yes makes intervals too narrow by chance more likely;
    benchmarks/coverage.py measures by how much.
    """
    logs = []
    for own, partner in zip(own_ms, partner_ms, strict=True):
        if own:
            logs.append(math.log(statistics.median(own)) - (math.log(statistics.median(partner)) if partner else 0.0))
    half = half_width(logs)
    return half is not None and 2 * half <= precision


def fewest_and_most(asked: int | Until) -> tuple[int, int]:
    """The numbers of processes that a cell has at least and at most."""
    return (asked.min, asked.max) if isinstance(asked, Until) else (asked, asked)
