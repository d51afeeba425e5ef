"""The tables: raw requests as the engine and the clock gave them, trials and summary derived from them."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from coldprefix.config import SCHEMA_VERSION
from coldprefix.errors import NO_SPACE, ColdprefixError, no_space
from coldprefix.files import partial_of, write_text

METADATA = {"coldprefix_schema": str(SCHEMA_VERSION)}

# column: (type, what it is)
REQUESTS: dict[str, tuple[pl.DataType, str]] = {
    "phase": (pl.String(), "phase1, phase2, phase3a or phase3b"),
    "engine": (pl.String(), "vllm or llamacpp"),
    "interface": (pl.String(), "http or python"),
    "sweep": (pl.String(), "main, or the sweep of config.yaml that the cell belongs to"),
    "variant": (pl.String(), "main, SWEEP, or SWEEP/VARIANT where a sweep has variants"),
    "configuration": (pl.String(), "name of the token lengths of A, B and Q"),
    "state": (pl.String(), "hit or miss: the cache state the cell is about"),
    "model": (pl.String(), "name of the model"),
    "replicate": (pl.Int32(), "0, 1, ...: each has a fresh engine"),
    "trial": (pl.Int32(), "0, 1, ... within the replicate, burn-in included"),
    "burn_in": (pl.Boolean(), "a first trial of a fresh engine: not in the statistics"),
    "order": (pl.Int32(), "0, 1, ...: the request's place in its job"),
    "step": (pl.String(), "warmup, query, rewarm or stream"),
    "request_form": (pl.String(), "tokens, text or chat: how the prompt was sent"),
    "content": (pl.String(), "fresh or repeated: prompts of the trials"),
    "prompt_tokens": (pl.Int32(), "tokens sent; of text and chat: as the engine's own tokenizer counts them"),
    "prompt_hash": (pl.String(), "of the token ids sent: equal for all backends"),
    "intended_cached_tokens": (pl.Int32(), "tokens that had to be reused; null where the protocol prescribes nothing"),
    "cached_tokens": (pl.Int32(), "tokens the engine says it reused; null if it did not say"),
    "evaluated_tokens": (pl.Int32(), "prompt tokens the engine says it computed; null if it did not say"),
    "generated_tokens": (pl.Int32(), "tokens generated, as the engine says"),
    "connect_ms": (pl.Float64(), "time to connect, not part of the other times; null in process"),
    "ttft_ms": (pl.Float64(), "time to first token, ms; null when not streamed"),
    "total_ms": (pl.Float64(), "time until the answer was complete, ms"),
    "token_times_ms": (pl.List(pl.Float64()), "arrival of each token, ms; empty when not streamed"),
    "engine_prompt_ms": (pl.Float64(), "the engine's own time for the prompt, ms; null if it did not say"),
    "rejection": (pl.String(), "why the request cannot be used; null if it can"),
    "foreign_cpu": (pl.Float64(), "share of the machine's CPU time used by others during the trial, steal included; null if unknown"),
    "steal_cpu": (pl.Float64(), "share of the machine's CPU time that the hypervisor gave to others during the trial; null if unknown"),
    "cpu_mhz": (pl.Float64(), "mean clock of the CPUs after the trial, MHz; null if unknown"),
    "started_at": (pl.Datetime("us", "UTC"), "wall clock at the start"),
}
TRIALS: dict[str, tuple[pl.DataType, str]] = {
    "phase": (pl.String(), "as in requests"),
    "engine": (pl.String(), "as in requests"),
    "interface": (pl.String(), "as in requests"),
    "sweep": (pl.String(), "as in requests"),
    "variant": (pl.String(), "as in requests"),
    "configuration": (pl.String(), "as in requests"),
    "state": (pl.String(), "as in requests"),
    "model": (pl.String(), "as in requests"),
    "request_form": (pl.String(), "as in requests"),
    "content": (pl.String(), "as in requests"),
    "replicate": (pl.Int32(), "as in requests"),
    "trial": (pl.Int32(), "as in requests"),
    "burn_in": (pl.Boolean(), "as in requests"),
    "rejection": (pl.String(), "why the trial is not in the statistics: the rejection of its first bad request; null if it is"),
    "valid": (pl.Boolean(), "in the statistics: neither burn-in nor rejected"),
    "warmup_ms": (pl.Float64(), "time of the warm-up with [A, B], one token, ms"),
    "warmup_prompt_tokens": (pl.Int32(), "length of [A, B]; of text and chat: as the engine's own tokenizer counts it"),
    "warmup_cached_tokens": (pl.Int32(), "tokens the warm-up reused"),
    "query_ms": (pl.Float64(), "time of the query without streaming, one token, ms"),
    "ttft_non_streaming_ms": (pl.Float64(), "the same over HTTP; null in process, where nothing streams differently"),
    "query_prompt_tokens": (pl.Int32(), "length of the query; of text and chat: as the engine's own tokenizer counts it"),
    "query_cached_tokens": (pl.Int32(), "tokens the query reused"),
    "query_evaluated_tokens": (pl.Int32(), "tokens the query computed"),
    "query_rejection": (pl.String(), "why the query was not what it was meant to be; null if it was"),
    "rewarm_ms": (pl.Float64(), "time of the second warm-up with [A, B], one token, ms: what the query destroyed"),
    "rewarm_cached_tokens": (pl.Int32(), "tokens the re-warm reused"),
    "ttft_ms": (pl.Float64(), "time to first token of the streaming query, ms"),
    "stream_cached_tokens": (pl.Int32(), "tokens the streaming query reused"),
    "stream_evaluated_tokens": (pl.Int32(), "tokens the streaming query computed"),
    "overhead_ms": (pl.Float64(), "ttft_ms minus ttft_non_streaming_ms; null in process"),
    "engine_prompt_ms": (pl.Float64(), "the engine's own time for the streaming query's prompt, ms"),
    "client_ms": (pl.Float64(), "ttft_ms minus engine_prompt_ms: what transport and harness add"),
    "throughput_tok_s": (pl.Float64(), "tokens after the first, per second between the first and the last"),
    "foreign_cpu": (pl.Float64(), "as in requests"),
    "steal_cpu": (pl.Float64(), "as in requests"),
    "cpu_mhz": (pl.Float64(), "as in requests"),
    "connect_ms": (pl.Float64(), "time to connect for the streaming query, not part of TTFT, ms; null in process"),
    "started_at": (pl.Datetime("us", "UTC"), "start of the warm-up"),
}

# metric: (unit, what it is); the rows of summary
METRICS: dict[str, tuple[str, str]] = {
    "ttft_ms": ("ms", "time to first token, streaming"),
    "ttft_non_streaming_ms": ("ms", "time of a one-token answer over HTTP"),
    "overhead_ms": ("ms", "streaming minus non-streaming"),
    "query_ms": ("ms", "time of a one-token answer"),
    "warmup_ms": ("ms", "warm-up of [A, B]"),
    "rewarm_ms": ("ms", "warm-up of [A, B] after a query"),
    "throughput_tok_s": ("tokens/s", "generation after the first token"),
    "engine_prompt_ms": ("ms", "the engine's own prompt time"),
    "client_ms": ("ms", "time to first token minus the engine's own prompt time"),
    "ttft_degradation_pct": ("%", "median miss TTFT over median hit TTFT, minus 1"),
}

SUMMARY: dict[str, tuple[pl.DataType, str]] = {
    "phase": (pl.String(), "as in requests"),
    "engine": (pl.String(), "as in requests"),
    "interface": (pl.String(), "as in requests"),
    "model": (pl.String(), "as in requests"),
    "sweep": (pl.String(), "as in requests"),
    "variant": (pl.String(), "as in requests"),
    "configuration": (pl.String(), "as in requests"),
    "state": (pl.String(), "hit or miss; null for ttft_degradation_pct, which compares them"),
    "metric": (pl.String(), "one of METRICS"),
    "unit": (pl.String(), "its unit"),
    "n": (pl.Int32(), "valid trials with a value"),
    "n_rejected": (pl.Int32(), "trials left out because the engine's counts contradict the intended cache state"),
    "n_burn_in": (pl.Int32(), "first trials of a fresh engine, left out"),
    "cached_tokens": (pl.Float64(), "median of the tokens that the streaming query reused; null for ttft_degradation_pct"),
    "evaluated_tokens": (pl.Float64(), "median of the tokens that it computed; null for ttft_degradation_pct"),
    "mean": (pl.Float64(), "mean; null without valid trials and for ttft_degradation_pct"),
    "median": (pl.Float64(), "median; for ttft_degradation_pct the effect itself; null without valid trials"),
    "sd": (pl.Float64(), "sample standard deviation; null below 2 trials"),
    "ci_low": (pl.Float64(), "lower end of the 95 % bootstrap interval of `median`; null below 3 trials"),
    "ci_high": (pl.Float64(), "upper end"),
}


def schema(columns: dict[str, tuple[pl.DataType, str]]) -> pl.Schema:
    return pl.Schema({name: dtype for name, (dtype, _) in columns.items()})


def validate(frame: pl.DataFrame, columns: dict[str, tuple[pl.DataType, str]], what: str) -> None:
    """Raises ColdprefixError if a table does not have exactly these columns and types, or holds impossible values."""
    wanted = schema(columns)
    if frame.schema != wanted:
        differing = sorted(set(frame.schema.items()) ^ set(wanted.items()), key=str)
        raise ColdprefixError(f"{what}: the columns are not those of schema version {SCHEMA_VERSION}; differing: {differing}")
    keys = [name for name in ("phase", "sweep", "variant", "configuration", "model") if name in frame.columns]
    if missing := [name for name in keys if frame[name].null_count()]:
        raise ColdprefixError(f"{what}: {missing} must not be null")
    times = [n for n, t in wanted.items() if n.endswith("_ms") and t == pl.Float64 and n not in ("overhead_ms", "client_ms")]
    for name in times:
        if (frame[name] < 0).any() or frame[name].is_nan().any():
            raise ColdprefixError(f"{what}: {name} holds a time that is negative or not a number")


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


def _sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_table(frame: pl.DataFrame | pl.LazyFrame, path: Path) -> None:
    """Write a table that is not a cell's, as `write_parquet` does, and its sha256 beside it, in the form that sha256sum reads."""
    if isinstance(frame, pl.LazyFrame):
        _sink_parquet(frame, path)
    else:
        write_parquet(frame, path)
    write_text(_seal_of(path), f"{_sha256_of(path)}  {path.name}\n")


def read_table(path: Path, columns: dict[str, tuple[pl.DataType, str]] | None = None) -> pl.DataFrame:
    """Read what `write_table` wrote, and check that it is still that, before it is parsed: a damaged file can crash its reader.

    Raises:
        ColdprefixError: it cannot be read, is not as it was written, or does not have these ``columns``.
    """
    anew = f"Delete {path} and run snakemake again to make it anew."
    try:
        promised = _seal_of(path).read_text().split()[:1]
        if promised != [_sha256_of(path)]:
            raise ColdprefixError(f"{path} is not as coldprefix wrote it: its sha256 is not the one in {_seal_of(path)}. {anew}")
        frame = pl.read_parquet(path)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise ColdprefixError(f"cannot read {path}: {error}. {anew}") from None
    if columns is not None:
        validate(frame, columns, str(path))
    return frame


def read_tables(paths: Sequence[Path], columns: dict[str, tuple[pl.DataType, str]]) -> pl.DataFrame:
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
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
            # Polars drops an error of the last write, as of a disk that has just become full; a whole file ends like this.
            file.seek(max(0, partial.stat().st_size - 4))
            if file.read(4) != b"PAR1":
                raise OSError(errno.ENOSPC, "not written whole")
        partial.replace(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        # Polars gives no number; where the footer could not be written it speaks of thrift's transport.
        full = any(words in str(error) for words in ("No space left", "quota exceeded", "transport error"))
        if getattr(error, "errno", None) in NO_SPACE or full:
            raise ColdprefixError(no_space(path)) from None
        raise
    finally:
        partial.unlink(missing_ok=True)
