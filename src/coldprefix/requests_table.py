"""The raw data: one row per request, as the engine and the clock gave it."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

SCHEMA_VERSION = 1

# column: (type, what it is)
COLUMNS: dict[str, tuple[pl.DataType, str]] = {
    "phase": (pl.String(), "phase1, phase2, phase3a or phase3b"),
    "engine": (pl.String(), "vllm or llamacpp"),
    "interface": (pl.String(), "http or python"),
    "configuration": (pl.String(), "name of the token lengths of A, B and Q"),
    "state": (pl.String(), "hit or miss: the cache state the cell is about"),
    "model": (pl.String(), "name of the model"),
    "replicate": (pl.Int32(), "0, 1, ...: each has a fresh engine"),
    "trial": (pl.Int32(), "0, 1, ... within the replicate, burn-in included"),
    "burn_in": (pl.Boolean(), "a first trial of a fresh engine: not in the statistics"),
    "order": (pl.Int32(), "0, 1, ...: the request's place in its job"),
    "step": (pl.String(), "warmup, query, rewarm or stream"),
    "prompt_tokens": (pl.Int32(), "tokens sent"),
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
    "started_at": (pl.Datetime("us", "UTC"), "wall clock at the start"),
}
SCHEMA = pl.Schema({name: dtype for name, (dtype, _) in COLUMNS.items()})


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write whole or not at all: a partial file never has the final name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        frame.write_parquet(partial, compression="zstd", metadata={"coldprefix_schema": str(SCHEMA_VERSION)})
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
