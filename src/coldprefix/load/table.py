"""What the steady clients see while another one's request is a hit, a miss, or nothing: over engine processes."""

from __future__ import annotations

from typing import Any

import polars as pl

from coldprefix.analysis.statistics import Estimate, student
from coldprefix.load.clients import LATE, STATES

# What is looked at, of which requests: those that were being answered when the other client's came (where it sends nothing, the first ones of a
# round), and the one that comes right after it.
METRICS = {
    "longest_gap_ms": (
        "longest time between two tokens (ms)",
        (pl.col("client") >= 0) & pl.col("streaming"),
        (pl.col("client") >= 0) & (pl.col("number") == 0),
    ),
    "ttft_ms": ("TTFT (ms)", pl.col("client") == LATE, pl.col("client") == LATE),
}
KEYS = ["phase", "variant", "clients", "state"]


def values(rows: pl.DataFrame, metric: str) -> pl.DataFrame:
    """The median of each engine process: KEYS, engine_process, "value", and "n" requests that it is made of."""
    _, with_other, without = METRICS[metric]
    used = rows.filter(pl.col("rejection").is_null())
    used = used.filter(pl.when(pl.col("state") == STATES[0]).then(without).otherwise(with_other.fill_null(False)))
    return used.drop_nulls(metric).group_by(*KEYS, "engine_process", maintain_order=True).agg(value=pl.col(metric).median(), n=pl.len())


def table(rows: pl.DataFrame) -> pl.DataFrame:
    """A row for each metric, backend, variant, number of clients and state, and for state "miss - hit" what a miss costs more than a hit."""
    found: list[dict[str, Any]] = []
    for metric in METRICS:
        own = values(rows, metric)
        for key, group in own.group_by(KEYS, maintain_order=True):
            found.append(
                dict(zip(KEYS, key, strict=True)) | {"metric": metric} | _told(student(group["value"].to_list(), int(group["n"].sum())))
            )
        pairs = own.filter(state="miss").join(own.filter(state="hit"), on=[*KEYS[:3], "engine_process"])
        pairs = pairs.with_columns(cost=pl.col("value") - pl.col("value_right"), n=pl.min_horizontal("n", "n_right"))
        for key, group in pairs.group_by(KEYS[:3], maintain_order=True):
            told = _told(student(group["cost"].to_list(), int(group["n"].sum())))
            found.append(dict(zip(KEYS[:3], key, strict=True)) | {"state": "miss - hit", "metric": metric} | told)
    return pl.DataFrame(found).sort("metric", *KEYS)


def _told(found: Estimate) -> dict[str, Any]:
    return {"median": found.value, "ci_low": found.low, "ci_high": found.high, "n": found.n, "processes": found.processes}
