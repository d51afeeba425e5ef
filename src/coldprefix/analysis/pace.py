"""A trial whose engine took far longer or shorter for each token that it says it computed than in its cell's other trials.

Counts and time are told apart by an engine, so one speaks for the other: a prompt that was computed although it is counted as reused takes the
time of computing it. Such a trial is flagged and shown. It is not dropped: a busy machine does the same, and whoever drops what is slow
measures what is fast.
"""

from __future__ import annotations

import math

import polars as pl

CELL = ["job", "configuration", "state"]
FEWEST = 6  # valid trials of a cell, below which there is no telling what is far
SPREADS = 5.0  # times the others' robust standard deviation (1.4826 times their median distance from the median, Rousseeuw and Croux 1993)
FACTOR = 1.5  # at least: below, a noisy neighbour explains it


def with_pace(trials: pl.LazyFrame) -> pl.LazyFrame:
    """Trials with `pace` and `off_pace` (tables.TRIALS), from the streaming query's own engine time and computed tokens."""
    own_ms = pl.coalesce("engine_prompt_ms", "engine_ttft_ms")
    known = pl.col("valid") & (pl.col("stream_evaluated_tokens") > 0) & (own_ms > 0)
    value = pl.when(known).then((own_ms / pl.col("stream_evaluated_tokens")).log())
    far = value - value.median().over(CELL)
    limit = pl.max_horizontal(SPREADS * 1.4826 * far.abs().median().over(CELL), pl.lit(math.log(FACTOR)))
    told = value.count().over(CELL) >= FEWEST
    return trials.with_columns(pace=far.exp(), off_pace=pl.when(told).then(far.abs() > limit))
