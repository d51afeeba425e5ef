"""Medians, their bootstrap intervals, and the effect of a miss against a hit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 9999
SEED = 0  # intervals are the same on every run over the same data


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval; None where there are too few values for one (medians: 3)."""

    n: int
    mean: float | None
    median: float | None
    sd: float | None
    ci_low: float | None
    ci_high: float | None


def estimate(values: NDArray[np.float64]) -> Estimate:
    """Mean, median, standard deviation, and a percentile bootstrap interval of the median (scipy.stats.bootstrap)."""
    n = len(values)
    if n == 0:
        return Estimate(0, None, None, None, None, None)
    low, high = _interval((values,), lambda x, axis: np.median(x, axis=axis)) if n >= 3 else (None, None)
    sd = float(np.std(values, ddof=1)) if n >= 2 else None
    return Estimate(n, float(np.mean(values)), float(np.median(values)), sd, low, high)


def degradation_pct(hit: NDArray[np.float64], miss: NDArray[np.float64]) -> Estimate:
    """How much longer a miss takes than a hit: 100 x (median miss / median hit - 1), with a two-sample bootstrap interval.

    ``n`` is the smaller of the two counts. The mean and standard deviation of a ratio of medians are not defined: None.
    """
    n = min(len(hit), len(miss))
    if n == 0:
        return Estimate(0, None, None, None, None, None)

    def effect(h: Any, m: Any, axis: int) -> Any:
        return 100 * (np.median(m, axis=axis) / np.median(h, axis=axis) - 1)

    low, high = _interval((hit, miss), effect) if n >= 3 else (None, None)
    return Estimate(n, None, float(effect(hit, miss, axis=-1)), None, low, high)


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


def _interval(samples: tuple[NDArray[np.float64], ...], statistic: Any) -> tuple[float, float]:
    if all(np.ptp(sample) == 0 for sample in samples):  # nothing varies, nothing to resample
        value = float(statistic(*samples, axis=-1))
        return value, value
    from scipy.stats import bootstrap

    result = bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(SEED),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
