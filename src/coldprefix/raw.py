"""The raw files of a cell: its rows and its provenance record, written once by the measuring job and never edited.

Each carries its schema version and is sealed: the rows' sha256 stands in the record, the record's own in itself.
"""

from __future__ import annotations

import json
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from coldprefix import tables
from coldprefix.config import SCHEMA_VERSION, Cell
from coldprefix.environments import sha256_of
from coldprefix.errors import ColdprefixError
from coldprefix.files import write_bytes, write_json
from coldprefix.job import Job

FILES = ("requests.parquet", "provenance.json")


def write_cell(requests: Path, provenance: Path, rows: pl.DataFrame, record: Mapping[str, Any]) -> None:
    """Write a cell's rows (tables.REQUESTS) and its record, sealed; the record last. Raises ColdprefixError if the disk is full."""
    tables.write_parquet(rows, requests)
    told = {"schema_version": SCHEMA_VERSION, "requests": rows.height, "requests_sha256": sha256_of(requests.read_bytes())}
    write_json(provenance, sealed({**record, **told}))


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the sha256 of all else that it says (`record_sha256`), so that an edited one is noticed."""
    rest = {key: value for key, value in record.items() if key != "record_sha256"}
    return rest | {"record_sha256": sha256_of(json.dumps(rest, sort_keys=True).encode())}


def cell_of(record: Mapping[str, Any]) -> str:
    """The cell of a record: its folder below results/raw."""
    job = record["job"]
    return Cell(job["phase"], job["variant"], job["configuration"], job["state"]).path


def read_record(folder: Path, cell: str) -> dict[str, Any]:
    """A cell's provenance record. Raises ColdprefixError if it cannot be read, has been edited, or is another cell's or schema's."""
    path = folder / "provenance.json"
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict):
            raise TypeError("it holds no record")
        tables.check_version(path, record.get("schema_version"))
        if record.get("record_sha256") != sealed(record)["record_sha256"]:
            raise ColdprefixError(
                f"{path} is not as the measuring job wrote it: it does not match the checksum in it. Delete {folder} and run snakemake again "
                "to measure its cell anew."
            )
        found = cell_of(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ColdprefixError(f"cannot read {path}: {error!r}. Delete {folder} and run snakemake again to measure its cell anew.") from None
    if found != cell:
        raise ColdprefixError(f"{path} is of the cell {found}: has it been moved or edited? Delete {folder} and run snakemake again.")
    return record


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of many cells, as aggregation put them in one file. Raises ColdprefixError if it cannot be read or has been edited."""
    anew = f"Delete {path} and run snakemake again to make it anew."
    try:
        records = json.loads(path.read_text())
        if not records:
            raise ValueError("it holds no record")
        edited = [record for record in records if record["record_sha256"] != sealed(record)["record_sha256"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ColdprefixError(f"cannot read {path}: {error}. {anew}") from None
    if edited:
        raise ColdprefixError(f"{path} is not as coldprefix wrote it: a record does not match the checksum in it. {anew}")
    return list(records)


def read_cell(folder: Path, cell: str, record: Mapping[str, Any]) -> pl.DataFrame:
    """A cell's raw rows (tables.REQUESTS), checked against its record.

    Raises:
        ColdprefixError: the file is not the one that the measuring job wrote, or of another cell or schema.
    """
    path = folder / "requests.parquet"
    # First, since a damaged parquet file can crash its reader.
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ColdprefixError(f"cannot read {path}: {error}. Delete {folder} and run snakemake again to measure its cell anew.") from None
    if sha256_of(data) != record.get("requests_sha256"):
        raise ColdprefixError(
            f"{path} is not the file whose checksum its provenance.json holds: it has been edited, or mixed up with another run's. "
            f"Delete {folder} and run snakemake again to measure the cell anew."
        )
    frame = tables.read_requests(path)
    found = [Cell(*row).path for row in frame.select("phase", "variant", "configuration", "state").unique().rows()]
    if found != [cell]:
        raise ColdprefixError(f"{path} holds {found}, not the cell {cell}: has it been moved or edited?")
    return frame


def _is_whole(folder: Path, cell: str) -> bool:
    try:
        read_cell(folder, cell, read_record(folder, cell))
    except ColdprefixError:
        return False
    return True


def rows_below(folder: Path) -> list[Path]:
    """The files of rows below a folder, without those that are set aside."""
    return sorted(file for file in folder.rglob("requests.parquet") if not file.parent.name.startswith("."))


def aside_of(folder: Path) -> Path:
    """Where a cell's folder is between `set_aside` and `put_back`."""
    return folder.with_name(f".{folder.name}.aside")


def set_aside(raw: Path, cells: Iterable[str], incomplete: Path) -> None:
    """Keep cells that were measured to their end when their run was killed, before Snakemake could note that they are finished.

    Snakemake would delete them and measure them again; `put_back` is what the measuring job does instead.

    Args:
        raw: folder of the cells' folders.
        cells: their paths in it.
        incomplete: where Snakemake keeps an entry for each output of a job that has begun and not ended, named by its path in base64.
    """
    for cell in cells:
        folder = raw / cell
        entries = [urlsafe_b64encode(str(folder / name).encode()).decode() for name in FILES]
        if any((incomplete / entry).exists() for entry in entries) and _is_whole(folder, cell):
            shutil.rmtree(aside_of(folder), ignore_errors=True)
            folder.rename(aside_of(folder))


def forget_aside(raw: Path, cells: Iterable[str]) -> None:
    """Remove what was set aside of cells that are to be measured anew."""
    for cell in cells:
        shutil.rmtree(aside_of(raw / cell), ignore_errors=True)


def put_back(folder: Path, job: Job) -> bool:
    """Make the cell that was set aside its folder's content, if it is whole and was measured by this very job. False if there is none.

    Raises:
        ColdprefixError: the disk is full.
    """
    aside = aside_of(folder)
    if not aside.exists():
        return False
    try:
        mine = _is_whole(aside, job.cell) and Job.model_validate(read_record(aside, job.cell)["job"]).decisive() == job.decisive()
    except ValueError:  # a job of another version
        mine = False
    if mine:
        for name in FILES:  # the record last, as in `write_cell`
            write_bytes(folder / name, (aside / name).read_bytes())
    shutil.rmtree(aside)
    return mine
