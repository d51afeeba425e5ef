"""May these cells be put side by side? They must be what the configuration asks for, and measured under the same conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import polars as pl

from coldprefix.analysis.agreement import disagreements
from coldprefix.errors import ColdprefixError
from coldprefix.job import cell_of, differing

SENT = ["phase", "model", "variant", "configuration", "state", "own", "process", "trial", "step", "prompt_hash"]


def path_of(record: Mapping[str, Any]) -> str:
    """The cell of a record: its folder below results/raw."""
    return cell_of(record["job"]).path


def check_planned(records: Mapping[str, Mapping[str, Any]], planned: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a cell that was measured by another job than the configuration asks for now, as after `--touch` or with
    `--rerun-triggers mtime`: it would put two protocols into one table.

    Args:
        records: the cells' records by their paths.
        planned: jobs of the plan by the same.

    Raises:
        ColdprefixError: names the cell, the key and both values.
    """
    for cell, record in records.items():
        if cell not in planned:
            raise ColdprefixError(f"the configuration does not ask for the cell {cell}; run snakemake again")
        found = list(differing(record["job"], planned[cell]))
        if found:
            key, measured, asked = found[0]
            raise ColdprefixError(
                f"{cell} was measured with {key} {measured!r}, the configuration asks for {asked!r} now{also(found)}. Measure it anew: "
                f"delete results/raw/{cell} and run snakemake again, without --touch and with Snakemake's own --rerun-triggers."
            )


def also(found: Sequence[tuple[str, Any, Any]]) -> str:
    """Of (key, value, value) that differ, those after the first, in words."""
    return f" ({len(found) - 1} more differ: {', '.join(other for other, _, _ in found[1:4])})" if len(found) > 1 else ""


def check_comparable(records: Sequence[Mapping[str, Any]], vary: Sequence[str] = ()) -> None:
    """Refuse to put cells side by side that were measured under different conditions.

    The machine must be the same for all, unless ``vary`` names the host: then this holds on each machine, which is a block in the statistics
    (machines.py). A model of one name must be the same for all cells of a phase, the settings in force for all of a variant; and what must agree
    between the two interfaces of an engine (settings.py).

    Raises:
        ColdprefixError: names the field, the cells and both values, and how to measure anew.
    """
    by_machine = machines_among(records)
    if len(by_machine) > 1 and "host" not in vary:
        (one, first), (other, second) = list(by_machine.items())[:2]
        raise ColdprefixError(
            f"cells of {len(by_machine)} machines cannot be compared: {path_of(first[0])} was measured on {_named(one, first[0])}, {path_of(second[0])} on "
            f"{_named(other, second[0])}. Measure all on one (under SLURM: --nodelist, docs/slurm.md), or write vary: host, which makes the "
            "machine a block in the statistics"
        )
    for own in by_machine.values():
        _check_on_one_machine(own)


def machines_among(records: Sequence[Mapping[str, Any]]) -> dict[str | None, list[Mapping[str, Any]]]:
    """The records by the machine that they name; None: they name none."""
    found: dict[str | None, list[Mapping[str, Any]]] = {}
    for record in records:
        found.setdefault(record["host"].get("machine"), []).append(record)
    return found


def _named(machine: str | None, record: Mapping[str, Any]) -> str:
    slurm = record["host"].get("slurm") or {}
    node = f", node {slurm['node']} of SLURM" if slurm.get("node") else ""
    return f"the machine {machine or 'that is not named'} ({record['host']['cpu']}{node})"


def _check_on_one_machine(records: Sequence[Mapping[str, Any]]) -> None:

    def compare(records: Sequence[Mapping[str, Any]], fields: Sequence[tuple[str, ...]]) -> None:
        for field in fields:
            first_cell, first = path_of(records[0]), _get(records[0], field)
            for record in records[1:]:
                if _get(record, field) != first:
                    raise ColdprefixError(
                        f"cells that were measured differently cannot be compared: {'.'.join(field)} is {first!r} for {first_cell} and "
                        f"{_get(record, field)!r} for {path_of(record)}. Measure anew: snakemake --forcerun {record['job']['phase']}"
                    )

    compare(records, [("host", "cpu"), ("host", "usable_cpus"), ("host", "gpu_names")])
    # Of servers that somebody else runs they are not known.
    ours = [record for record in records if record["job"]["accelerator"] != "unknown"]
    compare(ours or records[:1], [("job", "accelerator"), ("job", "threads")])
    models: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        models.setdefault((record["job"]["phase"], record["job"]["model"]["name"]), []).append(record)
    for cells in models.values():
        compare(cells, [("job", "model")])
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
    request = ["model", "variant", "configuration", "state", "own", "process", "trial", "step"]
    requests = requests.filter("own")  # partners may be others
    sent = requests.group_by([*request, "phase"], maintain_order=True).agg(
        pl.col("prompt_hash").str.join(" ")
    )  # a trial has several foreign ones
    differing = sent.group_by(request, maintain_order=True).agg(pl.col("prompt_hash").n_unique(), pl.col("phase").unique())
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
