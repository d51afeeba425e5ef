"""The raw data of several runs, as of several machines, put together: a table for each machine, and one of all with the machine as a block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from coldprefix.analysis.comparable import SENT, also, check_comparable, check_same_prompts, machines_among
from coldprefix.analysis.machines import FEWEST_MACHINES, MACHINE
from coldprefix.analysis.summary import COMPARISONS, aligned, rows_of, trials_of
from coldprefix.data import tables
from coldprefix.data.parquet import write_table
from coldprefix.data.raw import read_cell, read_record, rows_below
from coldprefix.errors import ColdprefixError
from coldprefix.files import write_json, write_text
from coldprefix.job import differing

OF_THE_HOST = ("threads",)  # what `auto` made of a machine: with the machine a block, it may differ
MERGED: tables.Columns = {
    "machine": (pl.String(), "the machine whose own row it is; null: all together"),
    "machines": (
        pl.Int32(),
        "machines whose trials are in it; where more than one, median and ci_* are means over machines, see docs/cluster.md",
    ),
    **tables.SUMMARY,
    "like_low": (pl.Float64(), "lower end of the 95 % interval on a machine like these; null below 3 machines"),
    "like_high": (pl.Float64(), "upper end"),
}


@dataclass(frozen=True)
class Part:
    """A cell of one of the folders."""

    folder: Path
    cell: str
    record: Mapping[str, Any]


def read_parts(results: Path) -> list[Part]:
    """The cells below a folder of results.

    Raises:
        ColdprefixError: there is none, or one cannot be read or is of another schema version.
    """
    raw = results / "raw"
    files = rows_below(raw)
    if not files:
        raise ColdprefixError(f"{raw} holds no measured cell; RESULTS names the folders called results of the runs to merge")
    cells = [file.parent.relative_to(raw).as_posix() for file in files]
    return [Part(raw / cell, cell, read_record(raw / cell, cell)) for cell in cells]


def check_mergeable(parts: Sequence[Part]) -> None:
    """Refuse cells that are not what several machines measured of one study.

    Raises:
        ColdprefixError: a record without a machine, a measurement that is there twice, two jobs for one cell, or cells of one machine that
            cannot be compared; names the folders and what differs.
    """
    for part in parts:
        if not part.record["host"].get("machine"):
            raise ColdprefixError(f"{part.folder} does not say on which machine it was measured; measure it anew with this coldprefix")
    seals: dict[str, Part] = {}
    for part in parts:
        twin = seals.setdefault(part.record["requests_sha256"], part)
        if twin is not part:
            raise ColdprefixError(f"{part.folder} and {twin.folder} hold the same measurement; name each run once")
    first: dict[str, Part] = {}
    for part in parts:
        one = first.setdefault(part.cell, part)
        same = one.record["host"]["machine"] == part.record["host"]["machine"]
        found = [f for f in differing(one.record["job"], part.record["job"]) if same or f[0] not in OF_THE_HOST]
        if found:
            key, a, b = found[0]
            raise ColdprefixError(
                f"{part.cell} was measured by different jobs: {key} is {a!r} in {one.folder} and {b!r} in {part.folder}{also(found)}. "
                "Measure both with the same configuration and version of coldprefix"
            )
    check_comparable([part.record for part in parts], ["host"])


def merge(results: Sequence[Path], out: Path) -> str:
    """Write trials.parquet, summary.parquet (MERGED), provenance.json and summary.txt into ``out``.

    Args:
        results: folders of results, of one run each.

    Returns:
        The text of summary.txt.

    Raises:
        ColdprefixError: as `read_parts` and `check_mergeable`; or backends that were sent different tokens.
    """
    for one, other in combinations(results, 2):
        if one.resolve() == other.resolve():
            raise ColdprefixError(f"{one} is named twice; name each run once")
    parts = [part for folder in results for part in read_parts(folder)]
    check_mergeable(parts)
    together: dict[tuple[str, ...], list[Part]] = {}
    for part in parts:
        job = part.record["job"]
        together.setdefault((job["model"]["name"], job["variant"], job["configuration"]), []).append(part)
    frames = []
    for same in together.values():
        rows = [read_cell(part.folder, part.cell, part.record) for part in same]
        check_same_prompts(pl.concat([own.select(SENT) for own in rows]))
        frames.append(trials_of(pl.concat(rows).lazy()).collect().cast(tables.schema(tables.TRIALS)))
    trials = pl.concat(frames)
    tables.validate(trials, tables.TRIALS, "trials")
    summary = merged(trials)
    text = table(summary, [part.record for part in parts])
    write_table(trials, out / "trials.parquet")
    write_table(summary, out / "summary.parquet")
    write_json(out / "provenance.json", [part.record for part in parts])
    write_text(out / "summary.txt", text)
    return text


def merged(trials: pl.DataFrame) -> pl.DataFrame:
    """A row per cell and metric of all machines together, then of each (MERGED)."""
    rows = [{"machine": None, **row} for row in rows_of(trials)]
    for (name,), own in trials.group_by(MACHINE, maintain_order=True):
        rows += [{"machine": name, **row} for row in rows_of(own)]
    return pl.DataFrame(rows, schema=tables.schema(MERGED))


def table(summary: pl.DataFrame, records: Sequence[Mapping[str, Any]]) -> str:
    """The merged table as text: the machines; then TTFT and what a state costs over a hit, of all and of each machine."""
    lines = ["machines"]
    letters: dict[str, str] = {}
    for machine, own in machines_among(records).items():
        letters[str(machine)] = f"M{len(letters) + 1}"
        host, job = own[0]["host"], own[0]["job"]
        gpus = "".join(f", {gpu['name']}" for gpu in host["gpus"])
        node = f", node {host['slurm']['node']}" if (host.get("slurm") or {}).get("node") else ""
        lines.append(f"  {letters[str(machine)]} {machine}: {host['cpu']}, {job['threads']} threads{gpus}{node}; {len(own)} cells")
    names = ["phase", "variant", "configuration", "state"]
    header = [*names, "metric", "machine", "processes", "n", "value", "95 % on these machines", "95 % on one like these"]
    rows = [header]
    shown = summary.filter(pl.col("metric").is_in(["ttft_ms", *COMPARISONS]))
    for keys, found in shown.group_by([*names, "metric"], maintain_order=True):
        each = found.filter(pl.col("machine").is_not_null()).to_dicts()
        for row in [*found.filter(pl.col("machine").is_null()).to_dicts(), *(each if len(letters) > 1 else [])]:
            number = row["machines"] or 0
            where = (
                letters[row["machine"]] if row["machine"] else f"all {number}" if number == len(letters) else f"{number} of {len(letters)}"
            )
            ends = [_ends(row["ci_low"], row["ci_high"]), _ends(row["like_low"], row["like_high"])]
            value = "-" if row["median"] is None else f"{row['median']:.3f}"
            rows.append([*map(str, keys), where, str(row["processes"]), str(row["n"]), value, *ends])
    lines += ["", *aligned(rows)]
    if 1 < len(letters) < FEWEST_MACHINES:
        lines += ["", f"An interval on a machine like these needs {FEWEST_MACHINES} machines; that on these says nothing about others."]
    return "\n".join(lines) + "\n"


def _ends(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
