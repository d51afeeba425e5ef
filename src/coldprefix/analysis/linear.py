"""TTFT as a line in the tokens computed: one fit for each engine process, intervals over processes.

All lengths are measured in each process, in random order (a sweep with `mixed`), so what one process and its minutes do to all lengths
alike is in no residual. Errors are relative, as those of times are: points are weighted by 1 / y^2, or the longest prompts would decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coldprefix.analysis.machines import machine_of
from coldprefix.analysis.statistics import Estimate, student

FEWEST_LENGTHS = 4  # a bend needs one more than a line


@dataclass(frozen=True)
class Fit:
    """A line through the medians of each process, and how far the truth may be from one.

    Attributes:
        slope: ms per token; intercept: ms at none.
        bend_pct: how far the middle of the range lies from the chord between its ends, in % of the chord, by a parabola through the
            points; 0 for a line, negative where tokens cost more the longer the prompt is.
        deviations_pct: by tokens: how far the medians of this length lie from the line, in % of it.
        coefficients: (intercept, slope) of each process, shape (processes, 2).
        machines: that the processes ran on.
    """

    slope: Estimate
    intercept: Estimate
    bend_pct: Estimate
    deviations_pct: dict[int, Estimate]
    coefficients: NDArray[np.float64]
    machines: tuple[str, ...] = ()

    def at(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean line's values, shape of ``x``."""
        if self.intercept.value is None or self.slope.value is None:
            return np.full_like(x, np.nan)
        return np.asarray(self.intercept.value + self.slope.value * x)

    def band(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Ends of the 95 % interval of the line at each ``x``, shape of ``x``; None without an interval."""
        found = [student(list(self.coefficients @ np.array([1.0, value])), self.slope.n, machines=self.machines) for value in x]
        if any(each.low is None for each in found):
            return None
        return np.array([each.low for each in found]), np.array([each.high for each in found])


def _medians(trials: pl.DataFrame, tokens: str, column: str) -> dict[str, pl.DataFrame]:
    """By process: a row for each number of tokens with the median of ``column``, ascending."""
    known = trials.drop_nulls([tokens, column])
    table = known.group_by("engine_process", tokens, maintain_order=True).agg(pl.col(column).median()).sort(tokens)
    return {str(process): own for (process,), own in table.group_by("engine_process", maintain_order=True)}


def _polynomial(x: NDArray[np.float64], y: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """Coefficients of rising degree, by least squares of relative errors."""
    return np.asarray(np.polynomial.polynomial.polyfit(x, y, degree, w=1 / y))


def equally_computed(hits: pl.DataFrame) -> pl.DataFrame:
    """The hits that compute the number of tokens that most lengths do: only these differ in nothing but the tokens reused (a block pool
    rounds what is reused, and computes the rest)."""
    computed, reused = "stream_evaluated_tokens", "stream_cached_tokens"
    counts = hits.drop_nulls([computed, reused]).group_by(computed).agg(lengths=pl.col(reused).n_unique())
    most = counts.sort("lengths", computed)[computed].to_list()
    return hits.filter(pl.col(computed) == most[-1]) if most else hits.clear()


def fit(trials: pl.DataFrame, tokens: str = "stream_evaluated_tokens", column: str = "ttft_ms", from_tokens: int = 0) -> Fit | None:
    """Fit the valid trials of one backend; None where no process has FEWEST_LENGTHS lengths of at least ``from_tokens``.

    Args:
        tokens: what the line is in: computed tokens, or cached ones.
    """
    used = trials.filter(pl.col(tokens) >= from_tokens)
    lines, bends, deviations, machines = [], [], dict[int, list[tuple[str, float]]](), []
    for process, own in _medians(used, tokens, column).items():
        x, y = (own[name].to_numpy().astype(np.float64) for name in (tokens, column))
        if len(x) < FEWEST_LENGTHS:
            continue
        intercept, slope = _polynomial(x, y, 1)
        lines.append((intercept, slope))
        machines.append(machine_of(process))
        parabola = np.polynomial.Polynomial(_polynomial(x, y, 2))
        middle = (x[0] + x[-1]) / 2
        chord = (parabola(x[0]) + parabola(x[-1])) / 2
        bends.append(100 * (parabola(middle) - chord) / chord)
        for length, value in zip(x, y, strict=True):
            deviations.setdefault(int(length), []).append((machines[-1], 100 * (value / (intercept + slope * length) - 1)))
    if not lines:
        return None
    n = used.drop_nulls([tokens, column]).height
    coefficients = np.array(lines)
    off = {
        length: student([value for _, value in found], n, machines=[machine for machine, _ in found])
        for length, found in sorted(deviations.items())
    }
    intercept, slope, bend = (student(list(values), n, machines=machines) for values in (*coefficients.T, bends))
    return Fit(slope, intercept, bend, off, coefficients, tuple(machines))
