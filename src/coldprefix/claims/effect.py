"""A number with its interval, which can be asked for again at another confidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

from coldprefix.analysis.statistics import CONFIDENCE, Estimate

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class Effect:
    """A number with its 95 % interval; None where there are too few engine processes or trials for one.

    Attributes:
        at: its interval at another confidence; without one, the number is exact or has no interval at all.
    """

    value: float
    low: float | None
    high: float | None
    at: Callable[[float], Interval] | None = None

    def map(self, function: Callable[[float], float]) -> Effect:
        """The effect of a monotonic function of it; a falling one swaps the ends."""

        def ends(interval: Interval) -> Interval:
            low, high = interval
            if low is None or high is None:
                return None, None
            one, other = sorted((function(low), function(high)))
            return one, other

        again = self.at
        return Effect(function(self.value), *ends((self.low, self.high)), None if again is None else lambda c: ends(again(c)))

    def with_confidence(self, confidence: float) -> Effect:
        """The same number, with the interval of this confidence."""
        if self.at is None or confidence == CONFIDENCE:
            return self
        low, high = self.at(confidence)
        return replace(self, low=low, high=high)


Judge = Callable[[Effect], "bool | None"]


def measured(estimate: Callable[[float], Estimate]) -> Effect | None:
    """The effect that an estimate gives at any confidence; None where it has no value.

    Args:
        estimate: of a confidence, e.g. ``lambda c: statistics.ratio(miss, hit, confidence=c)``.
    """

    def ends(confidence: float) -> Interval:
        found = estimate(confidence)
        return found.low, found.high

    found = estimate(CONFIDENCE)
    return None if found.value is None else Effect(found.value, found.low, found.high, ends)


def combined(effects: tuple[Effect, ...], function: Callable[..., float]) -> Effect:
    """The effect of a function of several, monotonic in each: its interval is that of the extremes of all, so rather too wide."""

    def ends(intervals: list[Interval]) -> Interval:
        known = [(low, high) for low, high in intervals if low is not None and high is not None]
        if len(known) < len(intervals):
            return None, None
        values = [function(*corner) for corner in product(*known)]
        return min(values), max(values)

    def at(confidence: float) -> Interval:
        return ends([(e.low, e.high) for e in (own.with_confidence(confidence) for own in effects)])

    return Effect(function(*(e.value for e in effects)), *at(CONFIDENCE), at)


def between(effect: Effect, lowest: float, highest: float) -> bool | None:
    """Does the whole interval lie in [lowest, highest] (True), or outside (False)? None: it straddles an end, or is unknown."""
    if effect.low is None or effect.high is None or math.isnan(effect.low) or math.isnan(effect.high):
        return None
    if lowest <= effect.low and effect.high <= highest:
        return True
    return False if effect.high < lowest or effect.low > highest else None


def inside(lowest: float, highest: float) -> Judge:
    """Agrees where the whole interval lies in [lowest, highest], contradicts where it lies outside."""
    return lambda effect: between(effect, lowest, highest)
