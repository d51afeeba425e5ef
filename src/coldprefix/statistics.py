"""Medians, their bootstrap intervals, and the effect of a miss against a hit."""

from __future__ import annotations

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
