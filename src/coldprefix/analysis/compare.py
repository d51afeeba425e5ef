"""Two runs side by side: ratios of medians per cell, and a refusal where more differs than was declared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from coldprefix.analysis.statistics import Groups, degradation_pct, groups, interval, pooled
from coldprefix.analysis.summary import BASELINE, trials_of
from coldprefix.data import tables
from coldprefix.data.raw import read_cell, read_record, rows_below
from coldprefix.errors import ColdprefixError
from coldprefix.job import Cell, cell_of

METRICS = ("ttft_ms", "ttft_non_streaming_ms", "warmup_ms", "rewarm_ms", "throughput_tok_s")
# What may be declared to differ, and the fields of a provenance record that it covers.
AXES: dict[str, tuple[str, ...]] = {
    "host": (
        "host.cpu",
        "host.usable_cpus",
        "host.memory_gib",
        "host.kernel",
        "host.system",
        "host.governor",
        "host.gpus",
        "job.accelerator",
        "job.threads",
    ),
    "engine": ("job.engine_key", "job.environment", "job.environment_key", "in_force.version", "in_force.libraries"),
    "settings": ("job.settings", "in_force"),
    "code": ("job.code",),
    "protocol": (
        "job.protocol.settle_ms",
        "job.protocol.stream_tokens",
        "job.protocol.reset",
        "job.protocol.request_form",
        "job.protocol.burn_in",
    ),
}
# Never declared: without these a ratio has no meaning. The number of trials and the time-outs may differ freely.
ALWAYS = ("job.lengths", "job.model.identity", "job.protocol.seed", "job.protocol.content", "schema_version")

COMPARISON: dict[str, tuple[pl.DataType, str]] = {
    "phase": (pl.String(), "as in requests"),
    "variant": (pl.String(), "as in requests"),
    "configuration": (pl.String(), "as in requests"),
    "state": (pl.String(), "as in requests; for the degradation factor the state that is compared with a hit"),
    "metric": (pl.String(), "a metric of summary, or degradation: TTFT over that of a hit"),
    "only_in": (pl.String(), "the run that has this cell, if the other has not"),
    "one": (pl.Float64(), "median in the first run"),
    "other": (pl.Float64(), "median in the second"),
    "n_one": (pl.Int32(), "valid trials in the first run"),
    "n_other": (pl.Int32(), "valid trials in the second"),
    "rejected_one": (pl.Int32(), "rejected trials in the first run"),
    "rejected_other": (pl.Int32(), "rejected trials in the second"),
    "ratio": (pl.Float64(), "other / one; null where a run has no value"),
    "ratio_low": (pl.Float64(), "lower end of its 95 % bootstrap interval; null below 3 trials"),
    "ratio_high": (pl.Float64(), "upper end"),
}


@dataclass(frozen=True)
class Run:
    """A folder of results: its trials, the hashes of its prompts, and a provenance record per cell."""

    folder: Path
    trials: pl.DataFrame
    prompts: dict[tuple[Any, ...], str]
    records: dict[Cell, Mapping[str, Any]]


def read_run(folder: Path) -> Run:
    """Read a results folder, or a folder that holds one.

    Raises:
        ColdprefixError: there is no raw data, a file of another schema version, or one that has been edited or cannot be read.
    """
    root = folder if (folder / "raw").is_dir() else folder / "results"
    files = rows_below(root / "raw")
    if not files:
        raise ColdprefixError(f"{folder} holds no results (looked for raw/**/requests.parquet in it and in its folder results)")
    frames: list[pl.DataFrame] = []
    records: dict[Cell, Mapping[str, Any]] = {}
    for file in files:
        cell = file.parent.relative_to(root / "raw").as_posix()
        record = read_record(file.parent, cell)
        records[cell_of(record["job"])] = record
        frames.append(read_cell(file.parent, cell, record))
    requests = pl.concat(frames)
    keys = ["phase", "variant", "configuration", "state", "replicate", "trial", "step"]
    prompts = {row[:-1]: row[-1] for row in requests.select(*keys, "prompt_hash").iter_rows()}
    trials = trials_of(requests.lazy()).collect().cast(tables.schema(tables.TRIALS))
    return Run(folder, trials, prompts, records)


def _get(record: Mapping[str, Any], path: str) -> Any:
    value: Any = record
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if path == "in_force" and isinstance(value, Mapping):  # without what other axes cover, and the command, which names files
        return {k: v for k, v in value.items() if k not in ("command", "version", "libraries", "threads", "threads_batch")}
    if path == "host.gpus":
        return [gpu["name"] for gpu in value or []]
    return value


def differences(one: Run, other: Run) -> Iterator[tuple[str | None, str, Cell, Any, Any]]:
    """(axis, field, cell, value, value) for each field that differs in any cell of both runs, once per field; axis None:
    it must never differ."""
    seen = set()
    for cell in one.records.keys() & other.records.keys():
        a, b = one.records[cell], other.records[cell]
        for axis, fields in [(None, ALWAYS), *AXES.items()]:
            for field in fields:
                if field not in seen and _get(a, field) != _get(b, field):
                    seen.add(field)
                    yield axis, field, cell, _get(a, field), _get(b, field)


def check(one: Run, other: Run, vary: Sequence[str]) -> list[str]:
    """Refuse runs in which more differs than was declared. Returns what differs, in words.

    Raises:
        ColdprefixError: the same folder twice, no cell in common, other prompts, or undeclared differences: each with its
            field, both values, and what would allow it.
    """
    if one.folder.resolve() == other.folder.resolve():
        raise ColdprefixError(f"both runs are the same folder: {one.folder}")
    if not one.records.keys() & other.records.keys():
        raise ColdprefixError(f"{one.folder} and {other.folder} have no cell in common, so there is nothing to compare")
    found = sorted(differences(one, other), key=lambda item: (item[0] or "", item[1]))
    refused = [item for item in found if item[0] not in vary]
    if refused:
        lines = []
        for axis, field, cell, a, b in refused:
            allow = f"allowed by --vary {axis}" if axis else "never comparable"
            lines.append(f"  {field} ({cell.path}): {_short(a)} and {_short(b)}; {allow}")
        raise ColdprefixError("the runs are not comparable as declared; these fields differ:\n" + "\n".join(lines))
    for key in one.prompts.keys() & other.prompts.keys():
        if one.prompts[key] != other.prompts[key]:
            raise ColdprefixError(f"the runs were sent different tokens ({'/'.join(map(str, key))}): prompt_hash differs; never comparable")
    return [f"{field}: {_short(a)} / {_short(b)}" for _, field, _, a, b in found]


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= 120 else text[:117] + "..."


def compare(one: Run, other: Run) -> pl.DataFrame:
    """A row per cell and metric, and one per phase x configuration for the degradation factor (COMPARISON)."""
    rows: list[dict[str, Any]] = []
    cells = [*one.records, *(cell for cell in other.records if cell not in one.records)]
    for cell in cells:
        a, b = _of(one, cell), _of(other, cell)
        for metric in METRICS:
            x, y = (groups(trials.filter("valid"), metric) for trials in (a, b))
            if x or y:
                rows.append(_keys(cell, one, other) | {"metric": metric} | _ratio(x, y) | _rejected(a, b))
    for cell in sorted(cell for cell in one.records.keys() & other.records.keys() if cell.state != BASELINE):
        hit = cell._replace(state=BASELINE)
        if any(hit not in run.records for run in (one, other)):
            continue
        samples = [groups(_of(run, own).filter("valid"), "ttft_ms") for run in (one, other) for own in (hit, cell)]
        if all(len(sample) for sample in samples):
            row = _keys(cell, one, other) | {"metric": "degradation"}
            rows.append(row | _factor(samples) | _rejected(*(pl.concat([_of(run, hit), _of(run, cell)]) for run in (one, other))))
    return pl.DataFrame(rows, schema=tables.schema(COMPARISON))


def _of(run: Run, cell: Cell) -> pl.DataFrame:
    keys = {"phase": cell.phase, "variant": cell.variant, "configuration": cell.configuration, "state": cell.state}
    return run.trials.filter(*(pl.col(key) == value for key, value in keys.items()))


def _keys(cell: Cell, one: Run, other: Run) -> dict[str, Any]:
    only = None if cell in one.records and cell in other.records else str((one if cell in one.records else other).folder)
    return {"phase": cell.phase, "variant": cell.variant, "configuration": cell.configuration, "state": cell.state, "only_in": only}


def _rejected(a: pl.DataFrame, b: pl.DataFrame) -> dict[str, int]:
    one, other = (frame.filter(~pl.col("burn_in") & pl.col("rejection").is_not_null()).height for frame in (a, b))
    return {"rejected_one": one, "rejected_other": other}


def _ratio(x: Groups, y: Groups) -> dict[str, Any]:
    """Median of y over median of x; its interval is that of the effect in % (statistics.degradation_pct), on another scale."""
    effect = degradation_pct(x, y)
    low, high = (None if end is None else 1 + end / 100 for end in (effect.ci_low, effect.ci_high))
    one, other = pooled(x), pooled(y)
    median = [float(np.median(v)) if len(v) else None for v in (one, other)]
    ratio = None if effect.median is None else 1 + effect.median / 100
    return {
        "one": median[0],
        "other": median[1],
        "n_one": len(one),
        "n_other": len(other),
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
    }


def _factor(samples: Sequence[Groups]) -> dict[str, Any]:
    """Ratio of the runs' degradation factors, from the four samples hit and other state of one, hit and other state of other."""

    def statistic(hit: Any, miss: Any, hit_other: Any, miss_other: Any) -> Any:
        return (miss_other / hit_other) / (miss / hit)

    values = [pooled(sample) for sample in samples]
    medians = [float(np.median(v)) for v in values]
    factors = [medians[1] / medians[0], medians[3] / medians[2]]
    n = [min(len(values[i]), len(values[i + 1])) for i in (0, 2)]
    low, high = interval(statistic, *samples) if min(n) >= 3 else (None, None)
    found = {"ratio": factors[1] / factors[0], "ratio_low": low, "ratio_high": high}
    return {"one": factors[0], "other": factors[1], "n_one": n[0], "n_other": n[1], **found}


def table(comparison: pl.DataFrame, names: Sequence[str], differing: Sequence[str]) -> str:
    """The comparison as text: what differs, then TTFT and degradation per cell."""

    def entry(row: Mapping[str, Any]) -> str:
        if row["ratio"] is None:
            return f"only in {row['only_in']}" if row["only_in"] else "-"
        return f"{row['ratio']:.3f}" + (f" [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]" if row["ratio_low"] is not None else "")

    lines = [
        f"one: {names[0]}   other: {names[1]}   ratios are other / one [95 % interval]",
        "What differs: " + ("; ".join(differing) or "nothing declared"),
    ]
    for metric, title in (("ttft_ms", "TTFT"), ("degradation", "TTFT over that of a hit")):
        shown = comparison.filter(pl.col("metric") == metric)
        lines += ["", title] if len(shown) else []
        for row in shown.iter_rows(named=True):
            cell = "/".join(str(row[key]) for key in ("phase", "variant", "configuration", "state") if row[key])
            values = " ".join("-".rjust(9) if row[key] is None else f"{row[key]:9.2f}" for key in ("one", "other"))
            lines.append(f"{cell:<48} {values}   {entry(row)}")
    return "\n".join(lines) + "\n"
