"""Trials from requests, statistics from trials, and both as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from coldprefix.analysis import statistics
from coldprefix.analysis.pace import with_pace
from coldprefix.analysis.statistics import Estimate
from coldprefix.data.tables import METRICS, SUMMARY, TRIALS, schema

CELL = ["phase", "engine", "interface", "sweep", "variant", "configuration", "state", "model"]
BASELINE = "hit"  # the state that others are compared with
COST, COST_PER_TOKEN, EFFECT = "ttft_cost_ms", "ttft_cost_ms_per_token", "ttft_degradation_pct"
PREFILL_COST, PREFILL_EFFECT = "query_cost_ms", "query_degradation_pct"  # of the answer that is not streamed: the prefill alone
COMPARISONS = (COST, COST_PER_TOKEN, EFFECT, PREFILL_COST, PREFILL_EFFECT)
ENDS = ("value", "low", "high", "like_low", "like_high")
FEWEST_ARRIVALS = 16  # streamed tokens, below which there is no throughput: one late wake-up would decide it


def trials_of(requests: pl.LazyFrame) -> pl.LazyFrame:
    """One row per trial (tables.TRIALS) from one row per request (tables.REQUESTS)."""

    def of(step: str, column: str) -> pl.Expr:
        return pl.col(column).filter(pl.col("step") == step).first()

    http = pl.col("interface").first() == "http"
    arrivals = of("stream", "token_times_ms")
    spans = arrivals.list.last() - arrivals.list.first()
    own_ms = {step: pl.coalesce(of(step, "engine_prompt_ms"), of(step, "engine_ttft_ms")) for step in ("query", "stream")}
    client_ms = of("stream", "ttft_ms") - own_ms["stream"]
    trials = requests.group_by([*CELL, "job", "own", "process", "engine_process", "trial"], maintain_order=True).agg(
        request_form=pl.col("request_form").first(),
        content=pl.col("content").first(),
        burn_in=pl.col("burn_in").first(),
        rejection=pl.col("rejection").drop_nulls().first(),
        warmup_ms=of("warmup", "total_ms"),
        warmup_prompt_tokens=of("warmup", "prompt_tokens"),
        warmup_cached_tokens=of("warmup", "cached_tokens"),
        query_ms=of("query", "total_ms"),
        ttft_non_streaming_ms=pl.when(http).then(of("query", "total_ms")),
        query_prompt_tokens=of("query", "prompt_tokens"),
        query_rejection=of("query", "rejection"),
        query_reusable_tokens=of("query", "reusable_cached_tokens"),
        query_cached_tokens=of("query", "cached_tokens"),
        query_evaluated_tokens=of("query", "evaluated_tokens"),
        rewarm_ms=of("rewarm", "total_ms"),
        rewarm_cached_tokens=of("rewarm", "cached_tokens"),
        ttft_ms=of("stream", "ttft_ms"),
        stream_cached_tokens=of("stream", "cached_tokens"),
        stream_evaluated_tokens=of("stream", "evaluated_tokens"),
        engine_prompt_ms=of("stream", "engine_prompt_ms"),
        engine_ttft_ms=of("stream", "engine_ttft_ms"),
        client_ms=client_ms,
        overhead_ms=pl.when(http).then(client_ms - (of("query", "total_ms") - own_ms["query"])),
        throughput_tok_s=pl.when((spans > 0) & (arrivals.list.len() >= FEWEST_ARRIVALS)).then(1e3 * (arrivals.list.len() - 1) / spans),
        foreign_cpu=pl.col("foreign_cpu").first(),
        workflow_cpu=pl.col("workflow_cpu").first(),
        steal_cpu=pl.col("steal_cpu").first(),
        cpu_mhz=pl.col("cpu_mhz").first(),
        connect_ms=of("stream", "connect_ms"),
        started_at=pl.col("started_at").min(),
        foreign_tokens=(pl.col("prompt_tokens").filter(pl.col("step") == "foreign").sum() // 2).cast(pl.Int32),
        foreign_ms=of("foreign", "total_ms"),
    )
    return with_pace(trials.with_columns(valid=~pl.col("burn_in") & pl.col("rejection").is_null())).select(list(TRIALS))


def summary_of(trials: pl.DataFrame) -> pl.DataFrame:
    """One row per cell and metric, and for each state but the baseline its comparisons with it (tables.SUMMARY)."""
    return pl.DataFrame(rows_of(trials), schema=schema(SUMMARY))


def rows_of(trials: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of `summary_of`, with what is known of several machines: machines, like_low, like_high (see `statistics.Estimate`)."""
    rows: list[dict[str, Any]] = []
    for keys, cell in trials.group_by(CELL, maintain_order=True):
        named = dict(zip(CELL, keys, strict=True)) | _counts(cell)
        valid = cell.filter("valid")
        named |= {"cached_tokens": valid["stream_cached_tokens"].median(), "evaluated_tokens": valid["stream_evaluated_tokens"].median()}
        for metric, (unit, _) in METRICS.items():
            if metric in cell.columns:
                values = valid[metric].drop_nulls()
                spread = {"mean": values.mean(), "sd": values.std()}
                rows.append(named | {"metric": metric, "unit": unit} | _told(statistics.estimate(valid, metric)) | spread)
    pair = [key for key in CELL if key != "state"]
    for keys, cells in trials.group_by(pair, maintain_order=True):
        by_state = {state: part for (state,), part in cells.group_by("state", maintain_order=True)}
        if BASELINE not in by_state:
            continue
        baseline = by_state.pop(BASELINE)
        for state, cell in by_state.items():
            named = dict(zip(pair, keys, strict=True)) | {"state": state} | _counts(pl.concat([baseline, cell]))
            named |= dict.fromkeys(("cached_tokens", "evaluated_tokens", "mean", "sd"))
            found = compared(cell.filter("valid"), baseline.filter("valid"))
            rows += [named | {"metric": metric, "unit": METRICS[metric][0]} | _told(effect) for metric, effect in found]
    return rows


def compared(state: pl.DataFrame, baseline: pl.DataFrame) -> Iterator[tuple[str, Estimate]]:
    """COMPARISONS of the valid trials of a state with those of its partner, the baseline."""
    yield COST, statistics.difference(state, baseline)
    yield COST_PER_TOKEN, statistics.difference(state, baseline, per="stream_evaluated_tokens")
    factor = statistics.ratio(state, baseline)
    yield EFFECT, in_pct(factor)
    yield PREFILL_COST, statistics.difference(state, baseline, "query_ms")
    yield PREFILL_EFFECT, in_pct(statistics.ratio(state, baseline, "query_ms"))


def in_pct(factor: Estimate) -> Estimate:
    """A ratio as a change in %; its sd stays a share."""
    ends: dict[str, Any] = {name: None if v is None else 100 * (v - 1) for name in ENDS for v in [getattr(factor, name)]}
    return replace(factor, units=tuple(100 * (v - 1) for v in factor.units), **ends)


def _told(found: Estimate) -> dict[str, Any]:
    shown = {"n": found.n, "processes": found.processes, "median": found.value, "sd_processes": found.sd, "df": found.df}
    over = {"machines": found.machines, "like_low": found.like_low, "like_high": found.like_high}
    return shown | over | {"ci_low": found.low, "ci_high": found.high}


def _counts(cell: pl.DataFrame) -> dict[str, int]:
    rejected = int((cell["rejection"].is_not_null() & ~cell["burn_in"]).sum())
    return {"n_rejected": rejected, "n_burn_in": int(cell["burn_in"].sum())}


def table(summary: pl.DataFrame) -> str:
    """The medians as text for the terminal: a line per cell, then what a state costs over a hit."""

    def entry(row: Mapping[str, Any] | None, digits: int = 1) -> str:
        if row is None or row["median"] is None or not math.isfinite(row["median"]):
            return "-"
        interval = f" [{row['ci_low']:.{digits}f}, {row['ci_high']:.{digits}f}]" if row["ci_low"] is not None else ""
        return f"{row['median']:.{digits}f}{interval}"

    header = ["phase", "variant", "configuration", "state", "processes", "n", "rejected", "reused", "computed"]
    lines = [[*header, "TTFT ms", "sd", "one token ms", "warm-up ms", "re-warm ms", "tokens/s"]]
    names = ["phase", "variant", "configuration", "state"]
    for keys, rows in summary.filter(~pl.col("metric").is_in(COMPARISONS)).group_by(names, maintain_order=True):
        by_metric = {row["metric"]: row for row in rows.iter_rows(named=True)}
        ttft = by_metric["ttft_ms"]
        counts = [str(ttft["processes"]), str(ttft["n"]), str(ttft["n_rejected"])]
        counts += ["-" if v is None else f"{v:.0f}" for v in (ttft["cached_tokens"], ttft["evaluated_tokens"])]
        spread = "-" if ttft["sd_processes"] is None else f"{ttft['sd_processes']:.1%}"
        metrics = [
            entry(by_metric["ttft_ms"]),
            spread,
            *(entry(by_metric[m]) for m in ("query_ms", "warmup_ms", "rewarm_ms", "throughput_tok_s")),
        ]
        lines.append([*map(str, keys), *counts, *metrics])
    text = aligned(lines)
    effects = summary.filter(pl.col("metric").is_in(COMPARISONS))
    if len(effects):
        text += [
            "",
            f"TTFT, and the time of one token that is not streamed, against a {BASELINE} in the same process [95 % interval over processes]",
        ]
        lines = [[*names, "processes", "ms more", "ms per token computed more", "% more", "one token: ms more", "% more"]]
        for keys, rows in effects.group_by(names, maintain_order=True):
            found = {row["metric"]: row for row in rows.iter_rows(named=True)}
            shown = [entry(found.get(COST)), entry(found.get(COST_PER_TOKEN), 3), entry(found.get(EFFECT), 0)]
            shown += [entry(found.get(PREFILL_COST)), entry(found.get(PREFILL_EFFECT), 0)]
            lines.append([*map(str, keys), str(found[COST]["processes"]), *shown])
        text += aligned(lines)
    return "\n".join(text) + "\n"


def aligned(lines: list[list[str]]) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest cell."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
