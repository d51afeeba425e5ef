"""What a verdict is about: the machine, the engines, the weights and the flags that the cells behind it were measured with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from coldprefix.job import cell_of
from coldprefix.study import registry

# Settings in force that can change a verdict, if an engine has them.
FLAGS = (
    *("dtype", "kv_dtype", "enforce_eager", "prefix_caching", "block_tokens", "gpu_layers", "flash_attention", "slots", "kv_unified"),
    *("host_cache_mib", "batch_tokens", "ubatch_tokens"),
)
UNKNOWN = "not known"
CELL = pl.format("{}/{}/{}/{}", "phase", "variant", "configuration", "state")


class Scope(NamedTuple):
    """Each a text, of several values all of them; None where nothing was measured.

    Attributes:
        hardware: of the CPU its model and the threads, of a GPU its name.
        engines: name, interface and version, and the digest of the build or of the locked packages.
        weights: name of the model, and whether they are random.
        flags: settings in force, by engine.
    """

    hardware: str | None
    engines: str | None
    weights: str | None
    flags: str | None


NOWHERE = Scope(None, None, None, None)


def records_of(rows: Iterable[str], trials: pl.DataFrame, provenance: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records of the jobs that measured these cells (phase/variant/configuration/state): their own, and those whose partners they
    were."""
    names = list(rows)
    jobs = set(trials.filter(CELL.is_in(names))["job"])
    return [r for r in provenance if "/".join(cell_of(r["job"])) in names or cell_of(r["job"]).path in jobs]


def scope_of(records: Sequence[Mapping[str, Any]]) -> Scope:
    """The scope of what was measured in these cells."""
    if not records:
        return NOWHERE
    by_engine: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_engine.setdefault(_title(record["job"]["engine"]), []).append(record)
    return Scope(
        _all(hardware_of(record) for record in records),
        _all(f"{title} {_versions(own)}" for title, own in by_engine.items()),
        _all(_weights(record["job"]["model"]) for record in records),
        _all(f"{title}: {_flags(own)}" for title, own in by_engine.items()),
    )


def hardware_of(record: Mapping[str, Any]) -> str:
    """Of one record."""
    cpu, job = record["host"]["cpu"], record["job"]
    if job["accelerator"] == "unknown":
        return f"{UNKNOWN} (asked from {cpu})"
    if job["accelerator"] == "cpu":
        return f"{cpu}, {job['threads']} threads"
    return f"{_all(gpu['name'] for gpu in record['host']['gpus']) or UNKNOWN} (on {cpu})"


def is_of(hardware: str, records: Sequence[Mapping[str, Any]]) -> bool:
    """Were all of these measured on this hardware, as a claim names it?"""
    return bool(records) and all(hardware.casefold() in hardware_of(record).casefold() for record in records)


def _title(engine: str) -> str:
    return registry.engine(engine).title if engine in registry.ENGINES else engine


def _versions(records: Sequence[Mapping[str, Any]]) -> str:
    versions = _all(f"{r['job']['interface']} {r['in_force'].get('version') or UNKNOWN}" for r in records)
    keys = _all(
        f"build {r['job']['engine_key'][:8]}" if r["job"]["engine_key"] else f"lock {r['job']['environment_key'][:8]}" for r in records
    )
    return f"{versions} ({keys})"


def _weights(model: Mapping[str, Any]) -> str:
    return str(model["name"]) + (" (random weights)" if model["random_weights"] else "")


def _flags(records: Sequence[Mapping[str, Any]]) -> str:
    found = []
    for flag in FLAGS:
        values = list(dict.fromkeys(str(r["in_force"][flag]) for r in records if r["in_force"].get(flag) is not None))
        found += [f"{flag} {' or '.join(values)}"] if values else []
    contents = dict.fromkeys(f"{r['job']['protocol']['content']} prompts" for r in records)
    return ", ".join([*found, *contents])


def _all(values: Iterable[str]) -> str | None:
    return "; ".join(dict.fromkeys(values)) or None
