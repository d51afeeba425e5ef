"""What a reader must know first: six lines, each of this run's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from coldprefix.analysis.self_check import NOMINAL
from coldprefix.analysis.summary import BASELINE, COST, COST_PER_TOKEN
from coldprefix.figures.style import backend_title

MAIN = pl.col("variant") == "main"


class Line(NamedTuple):
    """A line of the first screen."""

    title: str
    text: str


def lines(
    trials: pl.DataFrame,
    summary: pl.DataFrame,
    provenance: Sequence[Mapping[str, Any]],
    self_check: pl.DataFrame | None,
    calibration: pl.DataFrame | None,
) -> list[Line]:
    """The six lines; one for which nothing was measured says so.

    Args:
        trials: tables.TRIALS, summary: tables.SUMMARY, self_check: self_check.SELF_CHECK.
        calibration: of `instrument.calibration.summarise`.
    """
    return [
        Line("What a cold prefix costs here", _costs(summary, COST_PER_TOKEN, 1e3, "ms per 1,000 tokens computed")),
        Line("What one request pays for it", _costs(summary, COST, 1.0, "ms more than a hit")),
        Line("What a miss destroys", _destroyed(trials)),
        Line("How far the clock can be trusted", _clock(calibration)),
        Line("How far the intervals can be trusted", _alarms(self_check)),
        Line("What this run cannot say", _limits(trials, summary, provenance)),
    ]


def _costs(summary: pl.DataFrame, metric: str, factor: float, unit: str) -> str:
    """Of the state that computes most, in the configuration where that is most, for each backend."""
    ttft = summary.filter(MAIN & (pl.col("metric") == "ttft_ms") & (pl.col("state") != BASELINE)).drop_nulls("evaluated_tokens")
    found = summary.filter(MAIN & (pl.col("metric") == metric)).drop_nulls("median")
    known = ttft.join(found.select("configuration", "state").unique(), on=["configuration", "state"])
    if known.is_empty():
        return "Not measured: it takes the main experiment with hits and another state."
    most = known.sort("evaluated_tokens", "configuration", "state").row(-1, named=True)
    own = found.filter((pl.col("configuration") == most["configuration"]) & (pl.col("state") == most["state"])).sort("phase")
    told = [f"{backend_title(row['phase'])} {_interval(row, factor)}" for row in own.iter_rows(named=True)]
    return f"{unit} ({most['state']} of {most['configuration']}, {most['evaluated_tokens']:,.0f} tokens computed): {'; '.join(told)}."


def _interval(row: Mapping[str, Any], factor: float) -> str:
    def show(value: float) -> str:
        return f"{factor * value:,.0f}" if abs(factor * value) >= 100 else f"{factor * value:.3g}"

    between = "no interval" if row["ci_low"] is None else f"{show(row['ci_low'])} to {show(row['ci_high'])}"
    return f"{show(row['median'])} [{between}]".replace("-", "−")


def _destroyed(trials: pl.DataFrame) -> str:
    """Share of [A, B] that the next warm-up still reuses, after a hit and after a miss, by backend."""
    share = 100 * pl.col("rewarm_cached_tokens") / pl.col("warmup_prompt_tokens")
    known = trials.filter(MAIN & pl.col("valid") & pl.col("state").is_in([BASELINE, "miss"])).with_columns(share=share).drop_nulls("share")
    table = known.group_by("phase", "state").agg(pl.col("share").median()).pivot("state", index="phase", values="share").sort("phase")
    if table.is_empty() or not {BASELINE, "miss"} <= set(table.columns):
        return "Not measured: it takes hits and misses of the main experiment."
    told = [
        f"{backend_title(row['phase'])} {row['miss']:.0f} % instead of {row[BASELINE]:.0f} %"
        for row in table.drop_nulls().iter_rows(named=True)
    ]
    return f"Of the prompt that was warm, the next request reuses after a miss (counts, median): {'; '.join(told)}."


def _clock(calibration: pl.DataFrame | None) -> str:
    if calibration is None or calibration.is_empty():
        return "The harness was not calibrated in this run."
    worst = calibration.sort("bias_p99_ms").row(-1, named=True)
    beside = f"beside {worst['beside']} busy threads" if worst["beside"] else "on an idle machine"
    median = max(abs(bias) for bias in calibration["bias_ms"].to_list())
    return (
        f"Against engines whose times are known, a TTFT is at most {median:.2f} ms too long in the median, and {worst['bias_p99_ms']:.2f} ms in one of a hundred"
        f" ({worst['engine']}, {beside}). A difference below that is none."
    )


def _alarms(self_check: pl.DataFrame | None) -> str:
    if self_check is None or self_check.is_empty():
        return "Not checked: nothing was measured in two places."
    alarms = int((~self_check["contains_one"]).sum())
    rate = alarms / self_check.height
    verdict = "as often as they should" if rate <= 0.08 else "too often: read intervals as too narrow"
    return f"The same computation measured twice: {alarms} of {self_check.height} intervals leave 1 out ({rate:.0%}, nominal {NOMINAL:.0%}), {verdict}."


def _limits(trials: pl.DataFrame, summary: pl.DataFrame, provenance: Sequence[Mapping[str, Any]]) -> str:
    told = []
    if any(record["job"]["accelerator"] == "cpu" for record in provenance):
        told.append("what a GPU takes: it was measured on a CPU; the counts hold there, the milliseconds do not")
    if any(record["job"]["model"]["random_weights"] for record in provenance):
        told.append("anything about what a model writes: the weights are random")
    without = summary.filter(pl.col("n") > 0, pl.col("ci_low").is_null(), pl.col("metric") == "ttft_ms").height
    if without:
        told.append(
            f"how uncertain {without} of {summary.filter(pl.col('metric') == 'ttft_ms').height} times to first token are: fewer than three processes or six trials"
        )
    counted = trials.filter(~pl.col("burn_in"))
    rejected = counted.filter(pl.col("rejection").is_not_null()).height
    if rejected:
        told.append(f"anything from {rejected} of {counted.height} trials, whose cache state was not what it was meant to be")
    told.append("what happens under load, or on another machine")
    return "It cannot say " + "; ".join(told) + "."
