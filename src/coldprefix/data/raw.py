"""The raw files of a cell: its rows and its provenance record, written once by the measuring job and never edited.

Each carries its schema version and is sealed: the rows' sha256 stands in the record, the record's own in itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from coldprefix.data.parquet import check_version, read_requests, write_parquet
from coldprefix.data.tables import REQUESTS, SCHEMA_VERSION, schema
from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of, sha256_of_file, write_json
from coldprefix.job import cell_of


def write_cell(folder: Path, rows: pl.DataFrame, record: Mapping[str, Any]) -> None:
    """Write a cell's rows (tables.REQUESTS) and its record, sealed; the record last. Raises ColdprefixError if the disk is full."""
    requests = folder / "requests.parquet"
    write_parquet(rows, requests)
    told = {"schema_version": SCHEMA_VERSION, "requests": rows.height, "requests_sha256": sha256_of_file(requests)}
    write_json(folder / "provenance.json", sealed({**record, **told}))


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the sha256 of all else that it says (`record_sha256`), so that an edited one is noticed."""
    rest = {key: value for key, value in record.items() if key != "record_sha256"}
    return rest | {"record_sha256": sha256_of(json.dumps(rest, sort_keys=True).encode())}


def read_record(folder: Path, cell: str) -> dict[str, Any]:
    """A cell's provenance record. Raises ColdprefixError if it cannot be read, has been edited, or is another cell's or schema's."""
    path = folder / "provenance.json"
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict):
            raise TypeError("it holds no record")
        check_version(path, record.get("schema_version"))
        if record.get("record_sha256") != sealed(record)["record_sha256"]:
            raise ColdprefixError(
                f"{path} is not as the measuring job wrote it: it does not match the checksum in it. Delete {folder} and run snakemake again "
                "to measure its cell anew."
            )
        found = cell_of(record["job"]).path
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
    frame = read_requests(path)
    found = frame["job"].unique().to_list()
    kinds = {(kind["configuration"], kind["state"]) for kind in record["job"]["kinds"]}
    strange = set(frame.select("configuration", "state").unique().rows()) - kinds
    if found != [cell] or strange or set(frame.filter("own")["state"]) != {record["job"]["state"]}:
        raise ColdprefixError(
            f"{path} holds {found} with other trials than its record says, not the cell {cell}: has it been moved or edited?"
        )
    return frame


def rows_below(folder: Path) -> list[Path]:
    """The files of rows below a folder."""
    return sorted(folder.rglob("requests.parquet"))


def as_frame(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as the raw table (tables.REQUESTS)."""
    return pl.DataFrame(rows, schema=schema(REQUESTS))
