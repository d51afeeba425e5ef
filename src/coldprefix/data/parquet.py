"""Parquet files: written whole or not at all, sealed by their sha256, checked before they are parsed."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from coldprefix.data.tables import REQUESTS, SCHEMA_VERSION, Columns, validate
from coldprefix.errors import ColdprefixError, no_space
from coldprefix.files import sha256_of_file, whole, write_text

METADATA = {"coldprefix_schema": str(SCHEMA_VERSION)}


def check_version(path: Path, version: object) -> None:
    """Raises ColdprefixError if a raw file is of another schema version than this one."""
    if str(version) != str(SCHEMA_VERSION):
        told = "no schema version" if version is None else f"the schema version {version}"
        raise ColdprefixError(
            f"{path} has {told}, this coldprefix reads {SCHEMA_VERSION}. Use the coldprefix that wrote it (its provenance.json names the "
            f"commit), or delete {path.parent} and run snakemake again to measure its cell anew."
        )


def read_requests(path: Path) -> pl.DataFrame:
    """Read a raw file and check it. Raises ColdprefixError for a file of another schema, or not a parquet file."""
    try:
        version = pl.read_parquet_metadata(path).get("coldprefix_schema")
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ColdprefixError(f"cannot read {path}: {error}. Delete it and run snakemake again to measure its cell anew.") from None
    check_version(path, version)
    validate(frame, REQUESTS, str(path))
    return frame


def _seal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def write_table(frame: pl.DataFrame | pl.LazyFrame, path: Path) -> None:
    """Write a table that is not a cell's, as `write_parquet` does, and its sha256 beside it, in the form that sha256sum reads."""
    if isinstance(frame, pl.LazyFrame):
        _sink_parquet(frame, path)
    else:
        write_parquet(frame, path)
    write_text(_seal_of(path), f"{sha256_of_file(path)}  {path.name}\n")


def read_table(path: Path, columns: Columns | None = None) -> pl.DataFrame:
    """Read what `write_table` wrote, and check that it is still that, before it is parsed: a damaged file can crash its reader.

    Raises:
        ColdprefixError: it cannot be read, is not as it was written, or does not have these ``columns``.
    """
    anew = f"Delete {path} and run snakemake again to make it anew."
    try:
        promised = _seal_of(path).read_text().split()[:1]
        if promised != [sha256_of_file(path)]:
            raise ColdprefixError(f"{path} is not as coldprefix wrote it: its sha256 is not the one in {_seal_of(path)}. {anew}")
        frame = pl.read_parquet(path)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise ColdprefixError(f"cannot read {path}: {error}. {anew}") from None
    if columns is not None:
        validate(frame, columns, str(path))
    return frame


def read_tables(paths: Sequence[Path], columns: Columns) -> pl.DataFrame:
    """Tables of the same kind, one after the other. Raises ColdprefixError as `read_table` does."""
    return pl.concat([read_table(path, columns) for path in paths])


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write whole or not at all: a partial file never has the final name."""
    with _whole(path) as partial:
        frame.write_parquet(partial, compression="zstd", metadata=METADATA)


def _sink_parquet(frame: pl.LazyFrame, path: Path) -> None:
    """The same for a table that is larger than memory: it is written as it is read."""
    with _whole(path) as partial:
        frame.sink_parquet(partial, compression="zstd", metadata=METADATA, engine="streaming")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    try:
        with whole(path) as partial:
            yield partial
            # Polars drops an error of the last write, as of a disk that has just become full; a whole file ends like this.
            with open(partial, "rb") as file:
                file.seek(max(0, partial.stat().st_size - 4))
                if file.read(4) != b"PAR1":
                    raise OSError(errno.ENOSPC, "not written whole")
    except (OSError, pl.exceptions.PolarsError) as error:
        # Polars gives no number; where the footer could not be written it speaks of thrift's transport.
        if any(words in str(error) for words in ("No space left", "quota exceeded", "transport error")):
            raise ColdprefixError(no_space(path)) from None
        raise
