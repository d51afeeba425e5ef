"""Time to first token by what a request computes and reuses, from the sweep over lengths: one curve for each engine process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from coldprefix.advice.order import Layout
from coldprefix.analysis import linear
from coldprefix.analysis.statistics import Estimate, student
from coldprefix.study.by_layout import state_at

Curve = Callable[[int, int], float]  # (tokens computed, tokens reused) -> ms


def curves(scaling: pl.DataFrame) -> list[Curve]:
    """A curve for each engine process of one backend: between the measured lengths a straight line, beyond them the slope of the next two.

    Args:
        scaling: the valid trials of the sweep `scaling` of one backend (tables.TRIALS): misses of rising length, and hits, whose times by
            reused tokens say what a reused token costs.
    """
    misses, hits = (scaling.filter(pl.col("state") == state) for state in ("miss", "hit"))
    reused = linear.fit(linear.equally_computed(hits), "stream_cached_tokens")
    per_reused = reused.slope.value if reused and reused.slope.value else 0.0
    medians = misses.drop_nulls("ttft_ms").group_by("engine_process", "stream_evaluated_tokens").agg(pl.col("ttft_ms").median())
    found = []
    for _, own in medians.sort("engine_process", "stream_evaluated_tokens").group_by("engine_process", maintain_order=True):
        if own.height > 1:
            found.append(_curve(own["stream_evaluated_tokens"].to_list(), own["ttft_ms"].to_list(), per_reused))
    return found


def _curve(tokens: Sequence[int], ms: Sequence[float], per_reused: float) -> Curve:
    first, last = ((ms[i + 1] - ms[i]) / (tokens[i + 1] - tokens[i]) for i in (0, len(tokens) - 2))

    def curve(computed: int, reused: int) -> float:
        beyond = max(0, computed - tokens[-1]) * last + min(0, computed - tokens[0]) * first
        return float(np.interp(computed, tokens, ms)) + beyond + per_reused * reused

    return curve


def predicted(layout: Layout, of: Sequence[Curve]) -> Estimate:
    """Expected time to first token of a request, in ms, over processes."""
    return student([sum(case.chance * curve(case.computed, case.reused) for case in layout.cases) for curve in of], None)


def measured(layout: Layout, context: int, trials: pl.DataFrame) -> Estimate:
    """The same from the measured times of each case, in ms, over processes.

    Args:
        context: tokens of the prompt without its question.
        trials: the valid trials of the sweep `layout` of one backend.
    """
    medians = trials.drop_nulls("ttft_ms").group_by("engine_process", "state").agg(pl.col("ttft_ms").median())
    values = []
    for _, own in medians.sort("engine_process").group_by("engine_process", maintain_order=True):
        by_state = dict(own.select("state", "ttft_ms").iter_rows())
        if all(state_at(case.before, context) in by_state for case in layout.cases):
            values.append(sum(case.chance * by_state[state_at(case.before, context)] for case in layout.cases))
    return student(values, None)
