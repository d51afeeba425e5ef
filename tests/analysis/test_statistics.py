"""Intervals: exact where theory gives the value, and wider where trials share their engine's start."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from coldprefix.analysis import statistics
from coldprefix.measure import stopping


@pytest.mark.parametrize("n", [6, 7, 12, 20, 51])
def test_the_ranks_hold_the_median_with_95_percent_and_no_tighter_pair_does(n: int) -> None:
    found = stopping.ranks(n)
    assert found is not None
    low, high = found
    assert low + high == n - 1

    def coverage(k: int) -> float:
        return 1.0 - 2 * sum(comb(n, i) for i in range(k + 1)) / float(2**n)

    assert coverage(low) >= 0.95 > coverage(low + 1)


def test_too_few_values_have_no_interval_and_are_never_precise() -> None:
    assert stopping.ranks(5) is None and stopping.median_interval([1.0] * 5) is None
    assert not stopping.precise_enough([1.0] * 5, 0.5)
    assert stopping.precise_enough([1.0] * 6, 0.01)


def test_a_cell_stops_when_the_interval_is_narrow_and_not_before() -> None:
    wide = [100.0, 101.0, 99.0, 100.5, 120.0, 98.0]  # from 98 to 120: 22 %
    assert not stopping.precise_enough(wide, 0.2)
    assert stopping.precise_enough(wide, 0.25)
    assert stopping.precise_enough([*wide, *[100.0] * 10], 0.05), "one outlier does not keep it open for ever"


def test_variance_between_starts_widens_the_interval() -> None:
    """Values that agree within each replicate and differ between them: as one sample of 30 they look precise, and are not."""
    rng = np.random.default_rng(1)
    replicates = [centre + rng.normal(0, 1, 10) for centre in (100.0, 110.0, 120.0)]
    flat = statistics.estimate(np.concatenate(replicates))
    nested = statistics.estimate(replicates)
    assert flat.median == nested.median and flat.n == nested.n == 30
    assert flat.ci_low is not None and flat.ci_high is not None and nested.ci_low is not None and nested.ci_high is not None
    assert nested.ci_high - nested.ci_low > 1.3 * (flat.ci_high - flat.ci_low)


def test_one_replicate_is_the_plain_bootstrap_and_always_the_same() -> None:
    values = np.random.default_rng(2).normal(50, 5, 20)
    assert statistics.estimate(values) == statistics.estimate([values]) == statistics.estimate([values])


def test_large_samples_are_drawn_directly_with_the_same_result() -> None:
    values = np.random.default_rng(3).exponential(10, statistics.LARGE + 1)
    direct = statistics.bootstrap_medians(values, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    resampled = np.median(rng.choice(values, (9999, len(values))), axis=1)
    ordered = np.sort(values)  # both only take values of the sample: compared by their ranks in it
    for q in (2.5, 25, 50, 75, 97.5):
        ranks = [np.searchsorted(ordered, np.percentile(drawn, q, method="nearest")) for drawn in (direct, resampled)]
        assert abs(int(ranks[0]) - int(ranks[1])) <= 1


def test_equal_values_have_an_interval_of_no_width_and_an_effect_of_nothing() -> None:
    same = statistics.degradation_pct(np.full(8, 3.0), [np.full(4, 3.0), np.full(4, 3.0)])
    assert (same.median, same.ci_low, same.ci_high, same.n) == (0.0, 0.0, 0.0, 8)
