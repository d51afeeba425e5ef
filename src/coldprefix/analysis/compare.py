"""Two runs side by side: ratios of medians per cell, and a refusal where more differs than was declared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from coldprefix.analysis import statistics
from coldprefix.analysis.comparable import machines_among
from coldprefix.analysis.statistics import Estimate
from coldprefix.analysis.summary import BASELINE, trials_of
from coldprefix.data import tables
from coldprefix.data.raw import read_cell, read_record, rows_below
from coldprefix.errors import ColdprefixError
from coldprefix.job import Cell, cell_of

METRICS = ("ttft_ms", "ttft_non_streaming_ms", "warmup_ms", "rewarm_ms", "throughput_tok_s")
# What may be declared to differ, and the fields of a provenance record that it covers.
AXES: dict[str, tuple[str, ...]] = {
    "host": (
        "host.machine",
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
ALWAYS = ("job.kinds", "job.model.identity", "job.protocol.seed", "job.protocol.content", "schema_version")

COMPARISON: dict[str, tuple[pl.DataType, str]] = {
    "phase": (pl.String(), "as in requests"),
    "variant": (pl.String(), "as in requests"),
    "configuration": (pl.String(), "as in requests"),
    "state": (pl.String(), "as in requests; for the degradation factor the state that is compared with a hit"),
    "metric": (pl.String(), "a metric of summary, or degradation: TTFT over that of a hit"),
    "only_in": (pl.String(), "the run that has this cell, if the other has not"),
    "one": (pl.Float64(), "mean over processes of their medians in the first run"),
    "other": (pl.Float64(), "the same in the second"),
    "n_one": (pl.Int32(), "valid trials in the first run"),
    "n_other": (pl.Int32(), "valid trials in the second"),
    "rejected_one": (pl.Int32(), "rejected trials in the first run"),
    "rejected_other": (pl.Int32(), "rejected trials in the second"),
    "ratio": (pl.Float64(), "other / one; null where a run has no value"),
    "ratio_low": (pl.Float64(), "lower end of its 95 % interval over engine processes; null below 3 processes or 6 trials"),
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
    keys = ["job", "configuration", "state", "process", "trial", "step"]
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
    for run in (one, other):
        if (machines := len(machines_among(list(run.records.values())))) > 1:
            raise ColdprefixError(
                f"{run.folder} was measured on {machines} machines, and two runs are compared machine with machine: see make merge"
            )
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
    """A row per cell and metric, and one per phase x configuration for the degradation factor (COMPARISON). A cell is a state of a
    configuration on a backend, whichever jobs measured it."""
    rows: list[dict[str, Any]] = []
    keys = ["phase", "variant", "configuration", "state"]
    found = [dict(run.trials.group_by(keys, maintain_order=True)) for run in (one, other)]
    empty = one.trials.clear()
    for key in dict.fromkeys([*found[0], *found[1]]):
        a, b = (cells.get(key, empty) for cells in found)
        only = None if key in found[0] and key in found[1] else str((one if key in found[0] else other).folder)
        named = dict(zip(keys, key, strict=True)) | {"only_in": only} | _rejected(a, b)
        valid = [trials.filter("valid") for trials in (a, b)]
        for metric in METRICS:
            if any(trials[metric].drop_nulls().len() for trials in valid):
                rows.append(named | {"metric": metric} | _ratio(*(statistics.estimate(trials, metric) for trials in valid)))
        hit = (*key[:3], BASELINE)
        if key[3] != BASELINE and only is None and all(hit in cells for cells in found):
            factors = [statistics.ratio(own, cells[hit].filter("valid")) for own, cells in zip(valid, found, strict=True)]
            rows.append(named | {"metric": "degradation"} | _ratio(*factors))
    rows.sort(key=lambda row: row["metric"] == "degradation")
    return pl.DataFrame(rows, schema=tables.schema(COMPARISON))


def _rejected(a: pl.DataFrame, b: pl.DataFrame) -> dict[str, int]:
    one, other = (frame.filter(~pl.col("burn_in") & pl.col("rejection").is_not_null()).height for frame in (a, b))
    return {"rejected_one": one, "rejected_other": other}


def _ratio(one: Estimate, other: Estimate) -> dict[str, Any]:
    """The other over the one, with Welch's interval: no process belongs to both runs."""
    found = statistics.welch(other.units, one.units, min(one.n, other.n))
    values = {"one": one.value, "other": other.value, "n_one": one.n, "n_other": other.n}
    return values | {"ratio": found.value, "ratio_low": found.low, "ratio_high": found.high}


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
