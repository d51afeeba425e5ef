"""From raw requests to trials and summary. Nothing is dropped: what is left out of statistics is counted and kept.

Cells are read one phase x configuration at a time and the large tables written as streams, so that memory is that of a few
cells, however many there are (benchmarks/scale.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from coldprefix.analysis import caveats, walltime as costs
from coldprefix.data import tables
from coldprefix.errors import ColdprefixError
from coldprefix.files import write_json, write_text
from coldprefix.data.raw import cell_of, read_cell, read_record
from coldprefix.analysis.agreement import disagreements
from coldprefix.analysis.statistics import Estimate, degradation_pct, estimate, groups
from coldprefix.data.tables import METRICS, SUMMARY, TRIALS, schema

CELL = ["phase", "engine", "interface", "sweep", "variant", "configuration", "state", "model"]


def aggregate(raw: Path, cells: Sequence[str], out: Path, requests: bool) -> str:
    """Write trials.parquet, summary.parquet, provenance.json (a list), summary.txt and, if asked for, requests.parquet; the
    sha256 of each table beside it.

    Args:
        raw: folder of the cells' folders.
        cells: their paths in it.

    Returns:
        The text of summary.txt.

    Raises:
        ColdprefixError: a raw file that is missing, damaged, edited or another cell's, or cells that cannot be compared.
    """
    records = {cell: read_record(raw / cell, cell) for cell in cells}
    check_comparable(list(records.values()))
    together: dict[tuple[Any, ...], list[str]] = {}
    pairs: dict[tuple[Any, ...], list[str]] = {}
    for cell, record in records.items():
        job = record["job"]
        place = (job["variant"], job["configuration"])
        together.setdefault((job["model"]["name"], *place, job["state"]), []).append(cell)
        pairs.setdefault((job["phase"], *place), []).append(cell)
    for same in together.values():
        if len(same) > 1:
            check_same_prompts(pl.concat([read_cell(raw / cell, cell, records[cell]).select(SENT) for cell in same]))
    out.mkdir(parents=True, exist_ok=True)
    summaries, doubts = [], []
    parts = out / ".parts"  # always the same, so that what a killed program leaves there is removed
    shutil.rmtree(parts, ignore_errors=True)
    try:
        for number, pair in enumerate(pairs.values()):
            frames = [read_cell(raw / cell, cell, records[cell]) for cell in pair]
            trials = trials_of(pl.concat(frames).lazy()).collect().cast(tables.schema(TRIALS))
            tables.validate(trials, TRIALS, "trials")
            tables.write_parquet(trials, parts / f"{number:06}.parquet")
            summaries.append(summary_of(trials))
            doubts.append(caveats.caveats_of(trials, [records[cell] for cell in pair]))
        tables.write_table(pl.scan_parquet(sorted(parts.iterdir())), out / "trials.parquet")
    finally:
        shutil.rmtree(parts, ignore_errors=True)
    summary = pl.concat(summaries).sort(pl.col("state").is_null(), maintain_order=True)
    tables.validate(summary, SUMMARY, "summary")
    tables.write_table(summary, out / "summary.parquet")
    if requests:
        tables.write_table(pl.scan_parquet([raw / cell / "requests.parquet" for cell in cells]), out / "requests.parquet")
    write_json(out / "provenance.json", list(records.values()))
    found = pl.concat(doubts)
    text = f"{table(summary)}\n{costs.table(list(records.values()))}" + (f"\n{caveats.text(found)}" if len(found) else "")
    write_text(out / "summary.txt", text)
    return text


SENT = ["phase", "model", "variant", "configuration", "state", "replicate", "trial", "step", "prompt_hash"]


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
    for keys, both in trials.group_by(pair, maintain_order=True):
        if set(both["state"]) != {"hit", "miss"}:
            continue
        samples = {s: groups(both.filter(pl.col("valid") & (pl.col("state") == s)), "ttft_ms") for s in ("hit", "miss")}
        effect: Estimate = degradation_pct(samples["hit"], samples["miss"])
        counts = {"n_rejected": _rejected(both), "n_burn_in": int(both["burn_in"].sum())}
        named = dict(zip(pair, keys, strict=True)) | {"state": None, "metric": "ttft_degradation_pct", "unit": "%"}
        rows.append(named | counts | {"cached_tokens": None, "evaluated_tokens": None} | vars(effect))
    return pl.DataFrame(rows, schema=schema(SUMMARY))


def _rejected(cell: pl.DataFrame) -> int:
    return int((cell["rejection"].is_not_null() & ~cell["burn_in"]).sum())


def check_comparable(records: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to put cells side by side that were measured under different conditions.

    The machine must be the same for all; the settings in force and the model for all cells of a phase; and what must agree
    between the two interfaces of an engine (settings.py).

    Raises:
        ColdprefixError: names the field, the cells and both values, and how to measure anew.
    """

    def compare(records: Sequence[Mapping[str, Any]], fields: Sequence[tuple[str, ...]]) -> None:
        for field in fields:
            first_cell, first = cell_of(records[0]), _get(records[0], field)
            for record in records[1:]:
                if _get(record, field) != first:
                    raise ColdprefixError(
                        f"cells that were measured differently cannot be compared: {'.'.join(field)} is {first!r} for {first_cell} and "
                        f"{_get(record, field)!r} for {cell_of(record)}. Measure anew: snakemake --forcerun {record['job']['phase']}"
                    )

    if not records:
        return
    compare(records, [("host", "cpu"), ("host", "usable_cpus"), ("host", "gpu_names"), ("job", "accelerator"), ("job", "threads")])
    phases = dict.fromkeys(record["job"]["phase"] for record in records)
    for phase in phases:
        compare([r for r in records if r["job"]["phase"] == phase], [("job", "model"), ("job", "code")])
    # A variant of a sweep may change settings; within one, they are the same for all cells and for both interfaces of an engine.
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["job"]["variant"], record["job"]["phase"]), []).append(record)
    for cells in groups.values():
        compare(cells, [("in_force_settings",)])
    for (one_key, one_cells), (other_key, other_cells) in combinations(groups.items(), 2):
        if one_key[0] != other_key[0]:
            continue
        one, other = one_cells[0], other_cells[0]
        disagreements(*({**r["job"], "model": r["job"]["model"]["name"], "in_force": r["in_force"]} for r in (one, other)))


def check_same_prompts(requests: pl.DataFrame) -> None:
    """All backends that run the same model must have been sent the same token ids.

    Raises:
        ColdprefixError: names the first request that differs and the phases.
    """
    request = ["model", "variant", "configuration", "state", "replicate", "trial", "step"]
    differing = requests.group_by(request, maintain_order=True).agg(pl.col("prompt_hash").n_unique(), pl.col("phase").unique())
    for row in differing.filter(pl.col("prompt_hash") > 1).head(1).iter_rows(named=True):
        where = ", ".join(f"{key} {row[key]}" for key in request)
        raise ColdprefixError(f"the phases {sorted(row['phase'])} were not sent the same tokens ({where}), so they cannot be compared")


def _get(record: Mapping[str, Any], field: tuple[str, ...]) -> Any:
    if field == ("host", "gpu_names"):
        return [gpu["name"] for gpu in record["host"]["gpus"]]
    if field == ("in_force_settings",):  # all but the command line, which names files
        return {key: value for key, value in record["in_force"].items() if key != "command"}
    value: Any = record
    for key in field:
        value = value[key]
    return value


def table(summary: pl.DataFrame) -> str:
    """The medians as text for the terminal: a line per cell, then the degradation."""

    def entry(row: Mapping[str, Any] | None, digits: int = 1) -> str:
        if row is None or row["median"] is None:
            return "-"
        interval = f" [{row['ci_low']:.{digits}f}, {row['ci_high']:.{digits}f}]" if row["ci_low"] is not None else ""
        return f"{row['median']:.{digits}f}{interval}"

    cells = summary.filter(pl.col("state").is_not_null())
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
    effects = summary.filter(pl.col("metric") == "ttft_degradation_pct")
    if len(effects):
        text += ["", "TTFT of a miss over a hit, minus 1, in % [95 % interval]"]
        text += [f"{r['phase']:<8} {r['variant']:<22} {r['configuration']:<14} {entry(r, 0)}" for r in effects.iter_rows(named=True)]
    return "\n".join(text) + "\n"
