"""The tables: raw requests as the engine and the clock gave them, trials and summary derived from them."""

from __future__ import annotations

import polars as pl

from coldprefix.errors import ColdprefixError

# Of the raw files. 5: states are edits, the share of the workflow's process, a job's settings in one place. 4: the provenance record carries
# its own checksum. 3: steal_cpu, cpu_mhz, connect_ms.
SCHEMA_VERSION = 5

# column: (type, what it is)
Columns = dict[str, tuple[pl.DataType, str]]
REQUESTS: Columns = {
    "phase": (pl.String(), "the backend: phase1, phase2, phase3a, phase3b"),
    "engine": (pl.String(), "vllm, llamacpp"),
    "interface": (pl.String(), "http or python"),
    "sweep": (pl.String(), "main, or the sweep of config.yaml that the cell belongs to"),
    "variant": (pl.String(), "main, SWEEP, or SWEEP/VARIANT where a sweep has variants"),
    "configuration": (pl.String(), "name of the token lengths of A, B and Q"),
    "state": (pl.String(), "the cache state that the cell is about, by its edit: hit, miss"),
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
    "foreign_cpu": (
        pl.Float64(),
        "share of the machine's CPU time used by others during the trial, steal included, Snakemake not; null if unknown",
    ),
    "workflow_cpu": (pl.Float64(), "share of the machine's CPU time used by Snakemake's own process, not in foreign_cpu; null without it"),
    "steal_cpu": (pl.Float64(), "share of the machine's CPU time that the hypervisor gave to others during the trial; null if unknown"),
    "cpu_mhz": (pl.Float64(), "mean clock of the CPUs after the trial, MHz; null if unknown"),
    "started_at": (pl.Datetime("us", "UTC"), "wall clock at the start"),
}
TRIALS: Columns = {
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
    "workflow_cpu": (pl.Float64(), "as in requests"),
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
    "ttft_degradation_pct": ("%", "median TTFT of this state over that of a hit, minus 1"),
}

SUMMARY: Columns = {
    "phase": (pl.String(), "as in requests"),
    "engine": (pl.String(), "as in requests"),
    "interface": (pl.String(), "as in requests"),
    "model": (pl.String(), "as in requests"),
    "sweep": (pl.String(), "as in requests"),
    "variant": (pl.String(), "as in requests"),
    "configuration": (pl.String(), "as in requests"),
    "state": (pl.String(), "as in requests; for ttft_degradation_pct the state that is compared with a hit"),
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


def schema(columns: Columns) -> pl.Schema:
    return pl.Schema({name: dtype for name, (dtype, _) in columns.items()})


def validate(frame: pl.DataFrame, columns: Columns, what: str) -> None:
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
