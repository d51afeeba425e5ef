"""What of a replay the engine reused and computed, and what a computed token costs: so what the breaks cost in ms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from coldprefix.analysis import linear
from coldprefix.analysis.statistics import NOTHING, Estimate


@dataclass(frozen=True)
class Replayed:
    """A trace on one backend.

    Attributes:
        requests: a row for each request, over the engine processes: line, prompt_tokens, cached_tokens and evaluated_tokens (medians), ttft_ms (median,
            least and most in ttft_low, ttft_high); of verified ones only.
        ms_per_token: of a computed token, over engine processes.
        processes: engine processes; sent, rejected: requests of all processes; reasons: how many were rejected for each.
        evicted: verified requests that reused less than the rule of the cache would without eviction.
    """

    phase: str
    record: Mapping[str, Any]
    requests: pl.DataFrame
    ms_per_token: Estimate
    processes: int
    sent: int
    rejected: int
    reasons: dict[str, int]
    evicted: int
    foreign_cpu: float | None

    def ms(self, tokens: float) -> tuple[float, float, float] | None:
        """Time for computing so many tokens: (ms, ends of its interval); the ends are the value where there is no interval. None: unknown."""
        each = self.ms_per_token
        if each.value is None:
            return None
        return tokens * each.value, tokens * (each.low or each.value), tokens * (each.high or each.value)


def replayed(sent: pl.DataFrame, record: Mapping[str, Any]) -> Replayed:
    """From the rows of one backend (replay.SENT) and its record."""
    used = sent.filter(pl.col("rejection").is_null())
    fit = linear.fit(used, "evaluated_tokens", "ttft_ms")
    middle = [pl.col(name).median().cast(pl.Float64) for name in ("prompt_tokens", "cached_tokens", "evaluated_tokens", "ttft_ms")]
    requests = (
        used.group_by("line", maintain_order=True)
        .agg(*middle, ttft_low=pl.col("ttft_ms").min(), ttft_high=pl.col("ttft_ms").max(), processes=pl.len())
        .sort("line")
    )
    rejected = sent.filter(pl.col("rejection").is_not_null())["rejection"]
    return Replayed(
        sent["phase"][0],
        record,
        requests,
        fit.slope if fit else NOTHING,
        sent["process"].n_unique(),
        sent.height,
        len(rejected),
        dict(rejected.value_counts().iter_rows()),
        used.filter(pl.col("cached_tokens") < pl.col("rule_tokens")).height,
        used["foreign_cpu"].median(),  # type: ignore[arg-type]
    )
