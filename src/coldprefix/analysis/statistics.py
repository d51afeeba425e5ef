"""Medians, their bootstrap intervals, and the effect of a miss against a hit.

Trials of one engine process share its start: where the heap lies, how threads were placed. A sample is therefore a list of
arrays, one for each replicate (fresh engine), and intervals resample replicates first, then trials within them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 9999
SEED = 0  # intervals are the same on every run over the same data
LARGE = 200  # from here the distribution of a bootstrap median is drawn directly

Values = NDArray[np.float64]
Groups = Values | Sequence[Values]  # the values of a cell: one array, or one for each replicate


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval; None where there are too few values for one (medians: 3)."""

    n: int
    mean: float | None
    median: float | None
    sd: float | None
    ci_low: float | None
    ci_high: float | None


def groups(trials: pl.DataFrame, column: str) -> list[Values]:
    """The values of ``column`` that are not null, an array for each replicate."""
    own = trials.select("replicate", column).drop_nulls()
    return [part[column].to_numpy() for part in own.partition_by("replicate", maintain_order=True)]


def pooled(values: Groups) -> Values:
    """All values in one array."""
    if isinstance(values, np.ndarray):
        return values
    return np.concatenate(values) if len(values) else np.empty(0)


def estimate(values: Groups) -> Estimate:
    """Mean, median and standard deviation of all values, and a percentile bootstrap interval of the median."""
    flat = pooled(values)
    n = len(flat)
    if n == 0:
        return Estimate(0, None, None, None, None, None)
    low, high = interval(lambda median: median, values) if n >= 3 else (None, None)
    sd = float(np.std(flat, ddof=1)) if n >= 2 else None
    return Estimate(n, float(np.mean(flat)), float(np.median(flat)), sd, low, high)


def degradation_pct(hit: Groups, miss: Groups) -> Estimate:
    """How much longer a miss takes than a hit: 100 x (median miss / median hit - 1), with a two-sample bootstrap interval.

    ``n`` is the smaller of the two counts. The mean and standard deviation of a ratio of medians are not defined: None.
    """
    n = min(len(pooled(hit)), len(pooled(miss)))
    if n == 0:
        return Estimate(0, None, None, None, None, None)

    def effect(h: Any, m: Any) -> Any:
        return 100 * (m / h - 1)

    low, high = interval(effect, hit, miss) if n >= 3 else (None, None)
    return Estimate(n, None, float(effect(np.median(pooled(hit)), np.median(pooled(miss)))), None, low, high)


def interval(statistic: Callable[..., Any], *samples: Groups) -> tuple[float, float]:
    """95 % percentile bootstrap interval of a function of the samples' medians, which are resampled independently."""
    rng = np.random.default_rng(SEED)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = statistic(*(bootstrap_medians(sample, rng) for sample in samples))
    low, high = np.percentile(drawn, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return float(low), float(high)


def bootstrap_medians(values: Groups, rng: np.random.Generator, resamples: int = RESAMPLES) -> Values:
    """Medians of bootstrap resamples, shape (resamples,).

    With several replicates in two stages: replicates with replacement, then trials with replacement within each drawn one
    (Davison and Hinkley, Bootstrap Methods and their Application, 3.8). With few replicates such intervals are too
    narrow; benchmarks/false_alarms.py measures by how much.

    With one replicate of many trials, the median of a resample of n is the order statistic of rank ceil(n U), U the median of n
    uniform numbers, which is Beta distributed (Efron 1979, "Bootstrap methods: another look at the jackknife", section 3):
    drawn directly, so that a cell of a million trials costs no more than one of ten.
    """
    parts = [values] if isinstance(values, np.ndarray) else [part for part in values if len(part)]
    if len(parts) == 1 and len(parts[0]) >= LARGE:
        ordered, n = np.sort(parts[0]), len(parts[0])
        middle = (n + 1) // 2
        ranks = np.ceil(n * rng.beta(middle, n - middle + 1, resamples)).astype(int)
        return np.asarray(ordered[np.clip(ranks, 1, n) - 1])
    sizes = np.array([len(part) for part in parts])
    padded = np.full((len(parts), sizes.max()), np.nan)
    for row, part in zip(padded, parts, strict=True):
        row[: len(part)] = part
    block = max(1, 4_000_000 // padded.size)  # at most 32 MB of draws at a time
    medians = []
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn = rng.integers(len(parts), size=(count, len(parts))) if len(parts) > 1 else np.zeros((count, 1), dtype=int)
        within = (rng.random((count, len(parts), padded.shape[1])) * sizes[drawn][..., None]).astype(int)
        resample = padded[drawn[..., None], within]
        # A drawn replicate gives as many trials as it has; the rest of its row is no draw.
        resample[np.arange(padded.shape[1]) >= sizes[drawn][..., None]] = np.nan
        flat = resample.reshape(count, -1)
        medians.append(np.median(flat, axis=1) if (sizes == sizes[0]).all() else np.nanmedian(flat, axis=1))
    return np.concatenate(medians)


@dataclass(frozen=True)
class Line:
    """A least-squares line y = intercept + slope x, with 95 % bootstrap intervals from resampling the points.

    Attributes:
        slope, intercept, r2: (value, low, high) each.
        slopes, intercepts: of the resamples, shape (RESAMPLES,), for a band around the line.
    """

    n: int
    slope: tuple[float, float, float]
    intercept: tuple[float, float, float]
    r2: tuple[float, float, float]
    slopes: NDArray[np.float64]
    intercepts: NDArray[np.float64]

    def at(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The line's values, shape of ``x``."""
        return np.asarray(self.intercept[0] + self.slope[0] * x)

    def band(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper end of the 95 % interval of the line at each ``x``, shape (len(x),)."""
        lines = self.intercepts[:, None] + self.slopes[:, None] * x[None, :]
        low, high = np.percentile(lines, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)], axis=0)
        return low, high


def line(x: NDArray[np.float64], y: NDArray[np.float64]) -> Line | None:
    """Fit a line to points, shape (n,) each; None below 3 points or where all ``x`` are equal."""
    if len(x) < 3 or np.ptp(x) == 0:
        return None

    def fit(x: Any, y: Any, axis: int = -1) -> Any:
        dx, dy = x - x.mean(axis=axis, keepdims=True), y - y.mean(axis=axis, keepdims=True)
        xx, yy, xy = (dx * dx).sum(axis=axis), (dy * dy).sum(axis=axis), (dx * dy).sum(axis=axis)
        # A resample can draw one x only, or one y only: its line is not defined, and is left out below.
        with np.errstate(invalid="ignore", divide="ignore"):
            slope = xy / xx
            return np.stack([slope, y.mean(axis=axis) - slope * x.mean(axis=axis), xy * xy / (xx * yy)])

    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # of the undefined resamples, which are left out below
        rng = np.random.default_rng(SEED)
        result = bootstrap((x, y), fit, paired=True, n_resamples=RESAMPLES, method="percentile", vectorized=True, rng=rng)
    drawn = result.bootstrap_distribution[:, np.isfinite(result.bootstrap_distribution).all(axis=0)]
    low, high = np.percentile(drawn, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)], axis=1)
    values = fit(x, y)
    slope, intercept, r2 = ((float(values[i]), float(low[i]), float(high[i])) for i in range(3))
    return Line(len(x), slope, intercept, r2, drawn[0], drawn[1])
