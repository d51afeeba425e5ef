"""Time to first token by what a request computes, measured in the same engine processes: one curve for each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import polars as pl

from coldprefix.advice.order import Layout
from coldprefix.analysis.statistics import Estimate, student
from coldprefix.study.by_layout import state_at

Curve = Callable[[int], float]  # tokens computed -> ms


def curves(trials: pl.DataFrame, states: Collection[str]) -> dict[str, Curve]:
    """By engine process the curve of one backend: between the measured points a straight line, beyond them the slope of the next two.

    Args:
        trials: the valid trials of the sweep `layout` of one backend (tables.TRIALS).
        states: those of the ruler, whose prompts have one length and compute more or less of it.
    """
    own = trials.filter(pl.col("state").is_in(list(states))).drop_nulls("ttft_ms")
    medians = own.group_by("engine_process", "stream_evaluated_tokens").agg(pl.col("ttft_ms").median())
    found = {}
    for (process,), points in medians.sort("engine_process", "stream_evaluated_tokens").group_by("engine_process", maintain_order=True):
        if points.height > 1:
            found[str(process)] = _curve(points["stream_evaluated_tokens"].to_list(), points["ttft_ms"].to_list())
    return found


def _curve(tokens: Sequence[int], ms: Sequence[float]) -> Curve:
    first, last = ((ms[i + 1] - ms[i]) / (tokens[i + 1] - tokens[i]) for i in (0, len(tokens) - 2))

    def curve(computed: int) -> float:
        beyond = max(0, computed - tokens[-1]) * last + min(0, computed - tokens[0]) * first
        return float(np.interp(computed, tokens, ms)) + beyond

    return curve


def predicted(layout: Layout, of: Mapping[str, Curve]) -> dict[str, float]:
    """Expected time to first token of a request, in ms, by the engine process whose curve tells it."""
    return {process: sum(case.chance * curve(case.computed) for case in layout.cases) for process, curve in of.items()}


def measured(layout: Layout, context: int, trials: pl.DataFrame) -> dict[str, float]:
    """The same from the measured times of each case, by engine process; a process that lacks a case is left out.

    Args:
        context: tokens of the prompt without its question.
        trials: the valid trials of the sweep `layout` of one backend.
    """
    medians = trials.drop_nulls("ttft_ms").group_by("engine_process", "state").agg(pl.col("ttft_ms").median())
    found = {}
    for (process,), own in medians.sort("engine_process").group_by("engine_process", maintain_order=True):
        by_state = dict(own.select("state", "ttft_ms").iter_rows())
        if all(state_at(case.before, context) in by_state for case in layout.cases):
            found[str(process)] = sum(case.chance * by_state[state_at(case.before, context)] for case in layout.cases)
    return found


def over_processes(values: Mapping[str, float]) -> Estimate:
    """The mean over engine processes, with Student's interval."""
    return student(list(values.values()), None)


def saved(now: Mapping[str, float], then: Mapping[str, float]) -> Estimate:
    """By how many ms a request is earlier ``then`` than ``now``, over the engine processes that know both: a process's own speed cancels out."""
    return over_processes({process: now[process] - then[process] for process in now if process in then})
