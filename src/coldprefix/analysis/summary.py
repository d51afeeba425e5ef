"""Trials from requests, statistics from trials, and both as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from coldprefix.analysis.statistics import degradation_pct, estimate, groups
from coldprefix.data.tables import METRICS, SUMMARY, TRIALS, schema

CELL = ["phase", "engine", "interface", "sweep", "variant", "configuration", "state", "model"]
BASELINE = "hit"  # the state that others are compared with
EFFECT = "ttft_degradation_pct"


def trials_of(requests: pl.LazyFrame) -> pl.LazyFrame:
    """One row per trial (tables.TRIALS) from one row per request (tables.REQUESTS)."""

    def of(step: str, column: str) -> pl.Expr:
        return pl.col(column).filter(pl.col("step") == step).first()

    http = pl.col("interface").first() == "http"
    arrivals = of("stream", "token_times_ms")
    spans = arrivals.list.last() - arrivals.list.first()
    trials = requests.group_by([*CELL, "replicate", "trial"], maintain_order=True).agg(
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
        query_cached_tokens=of("query", "cached_tokens"),
        query_evaluated_tokens=of("query", "evaluated_tokens"),
        rewarm_ms=of("rewarm", "total_ms"),
        rewarm_cached_tokens=of("rewarm", "cached_tokens"),
        ttft_ms=of("stream", "ttft_ms"),
        stream_cached_tokens=of("stream", "cached_tokens"),
        stream_evaluated_tokens=of("stream", "evaluated_tokens"),
        engine_prompt_ms=of("stream", "engine_prompt_ms"),
        throughput_tok_s=pl.when(spans > 0).then(1e3 * (arrivals.list.len() - 1) / spans),
        foreign_cpu=pl.col("foreign_cpu").first(),
        workflow_cpu=pl.col("workflow_cpu").first(),
        steal_cpu=pl.col("steal_cpu").first(),
        cpu_mhz=pl.col("cpu_mhz").first(),
        connect_ms=of("stream", "connect_ms"),
        started_at=pl.col("started_at").min(),
    )
    return trials.with_columns(
        valid=~pl.col("burn_in") & pl.col("rejection").is_null(),
        overhead_ms=pl.col("ttft_ms") - pl.col("ttft_non_streaming_ms"),
        client_ms=pl.col("ttft_ms") - pl.col("engine_prompt_ms"),
    ).select(list(TRIALS))


def summary_of(trials: pl.DataFrame) -> pl.DataFrame:
    """One row per cell and metric, and one per phase x configuration for the degradation (tables.SUMMARY)."""
    rows: list[dict[str, Any]] = []
    for keys, cell in trials.group_by(CELL, maintain_order=True):
        named = dict(zip(CELL, keys, strict=True))
        valid = cell.filter("valid")
        counts: dict[str, Any] = {"n_rejected": _rejected(cell), "n_burn_in": int(cell["burn_in"].sum())}
        counts |= {"cached_tokens": valid["stream_cached_tokens"].median(), "evaluated_tokens": valid["stream_evaluated_tokens"].median()}
        for metric, (unit, _) in METRICS.items():
            if metric in cell.columns:
                rows.append(named | counts | {"metric": metric, "unit": unit} | vars(estimate(groups(valid, metric))))
    pair = [key for key in CELL if key != "state"]
    for keys, cells in trials.group_by(pair, maintain_order=True):
        by_state = {state: part for (state,), part in cells.group_by("state", maintain_order=True)}
        if BASELINE not in by_state:
            continue
        baseline = by_state.pop(BASELINE)
        for state, cell in by_state.items():
            effect = degradation_pct(*(groups(part.filter("valid"), "ttft_ms") for part in (baseline, cell)))
            both = pl.concat([baseline, cell])
            named = dict(zip(pair, keys, strict=True)) | {"state": state, "metric": EFFECT, "unit": "%"}
            named |= {
                "n_rejected": _rejected(both),
                "n_burn_in": int(both["burn_in"].sum()),
                "cached_tokens": None,
                "evaluated_tokens": None,
            }
            rows.append(named | vars(effect))
    return pl.DataFrame(rows, schema=schema(SUMMARY))


def _rejected(cell: pl.DataFrame) -> int:
    return int((cell["rejection"].is_not_null() & ~cell["burn_in"]).sum())


def table(summary: pl.DataFrame) -> str:
    """The medians as text for the terminal: a line per cell, then the degradation."""

    def entry(row: Mapping[str, Any] | None, digits: int = 1) -> str:
        if row is None or row["median"] is None:
            return "-"
        interval = f" [{row['ci_low']:.{digits}f}, {row['ci_high']:.{digits}f}]" if row["ci_low"] is not None else ""
        return f"{row['median']:.{digits}f}{interval}"

    cells = summary.filter(pl.col("metric") != EFFECT)
    header = [
        "phase",
        "variant",
        "configuration",
        "state",
        "n",
        "rejected",
        "reused",
        "computed",
        "TTFT ms",
        "warm-up ms",
        "re-warm ms",
        "tokens/s",
    ]
    lines = [header]
    for keys, rows in cells.group_by(["phase", "variant", "configuration", "state"], maintain_order=True):
        by_metric = {row["metric"]: row for row in rows.iter_rows(named=True)}
        ttft = by_metric["ttft_ms"]
        reused, computed = ("-" if v is None else f"{v:.0f}" for v in (ttft["cached_tokens"], ttft["evaluated_tokens"]))
        metrics = [entry(by_metric[m]) for m in ("ttft_ms", "warmup_ms", "rewarm_ms", "throughput_tok_s")]
        lines.append([*map(str, keys), str(ttft["n"]), str(ttft["n_rejected"]), reused, computed, *metrics])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    effects = summary.filter(pl.col("metric") == EFFECT)
    if len(effects):
        text += ["", f"TTFT over that of a {BASELINE}, minus 1, in % [95 % interval]"]
        for row in effects.iter_rows(named=True):
            text.append(f"{row['phase']:<8} {row['variant']:<22} {row['configuration']:<14} {row['state']:<10} {entry(row, 0)}")
    return "\n".join(text) + "\n"
