"""The tables: raw requests as the engine and the clock gave them, trials and summary derived from them."""

from __future__ import annotations

import polars as pl

from coldprefix.errors import ColdprefixError

# Of the raw files. 7: what an engine could have reused, beside what it must. 6: partners of a cell in its processes, the engine's time to first token apart from its prompt time. 5: states are edits, the share of the workflow's process, a job's settings in one place. 4: the provenance record carries
# its own checksum. 3: steal_cpu, cpu_mhz, connect_ms.
SCHEMA_VERSION = 7

# column: (type, what it is)
Columns = dict[str, tuple[pl.DataType, str]]
REQUESTS: Columns = {
    "phase": (pl.String(), "the backend: phase1, phase2, phase3a, phase3b, or the name of an endpoint"),
    "engine": (pl.String(), "vllm, llamacpp; endpoint: a server that somebody else runs"),
    "interface": (pl.String(), "http or python"),
    "sweep": (pl.String(), "main, or the sweep of config.yaml that the cell belongs to"),
    "variant": (pl.String(), "main, SWEEP, or SWEEP/VARIANT where a sweep has variants"),
    "configuration": (pl.String(), "name of the token lengths of A, B and Q"),
    "state": (pl.String(), "the cache state of the trial, by its edit: hit, miss, cold"),
    "model": (pl.String(), "name of the model"),
    "job": (pl.String(), "the cell whose job measured it"),
    "own": (pl.Boolean(), "the trial has the state of that cell; if not, it is a partner's, measured beside it as a control"),
    "process": (pl.Int32(), "0, 1, ...: the job's engine processes"),
    "engine_process": (
        pl.String(),
        "MACHINE:PROCESS: tells the engine's process from all others, and the machine from others: cells may share a server",
    ),
    "trial": (pl.Int32(), "0, 1, ... within the process, burn-in included: the round, in which each kind of trial of the job comes once"),
    "burn_in": (pl.Boolean(), "a first trial in a process: not in the statistics"),
    "order": (pl.Int32(), "0, 1, ...: the request's place in its job"),
    "step": (pl.String(), "warmup, query, rewarm or stream; foreign: another prompt, sent before query and stream"),
    "request_form": (pl.String(), "tokens, text or chat: how the prompt was sent"),
    "content": (pl.String(), "fresh or repeated: prompts of the trials"),
    "prompt_tokens": (pl.Int32(), "tokens sent; of text and chat: as the engine's own tokenizer counts them"),
    "prompt_hash": (
        pl.String(),
        "of the token ids sent: equal for all backends; for an endpoint of those drawn, which its session turns into others",
    ),
    "intended_cached_tokens": (
        pl.Int32(),
        "tokens that had to be reused by the engine's rule; null where the protocol or the rule prescribes no number",
    ),
    "reusable_cached_tokens": (
        pl.Int32(),
        "tokens that the prompt has in common with the warm-up, all but its last at most: what a cache without blocks, windows or states could reuse",
    ),
    "cached_tokens": (pl.Int32(), "tokens the engine says it reused; null if it did not say"),
    "evaluated_tokens": (pl.Int32(), "prompt tokens the engine says it computed; null if it did not say"),
    "generated_tokens": (pl.Int32(), "tokens generated, as the engine says"),
    "connect_ms": (pl.Float64(), "time to connect, not part of the other times; null in process"),
    "ttft_ms": (pl.Float64(), "time to first token, ms; null when not streamed"),
    "total_ms": (pl.Float64(), "time until the answer was complete, ms"),
    "token_times_ms": (pl.List(pl.Float64()), "arrival of each token, ms; empty when not streamed"),
    "engine_prompt_ms": (pl.Float64(), "the engine's own time for computing the prompt, ms; null if it did not say (vLLM)"),
    "engine_ttft_ms": (
        pl.Float64(),
        "the engine's own time to first token, queue and scheduling included, ms; null if it did not say (llama.cpp)",
    ),
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
    "job": (pl.String(), "as in requests"),
    "own": (pl.Boolean(), "as in requests"),
    "process": (pl.Int32(), "as in requests"),
    "engine_process": (pl.String(), "as in requests"),
    "trial": (pl.Int32(), "as in requests"),
    "burn_in": (pl.Boolean(), "as in requests"),
    "rejection": (pl.String(), "why the trial is not in the statistics: the rejection of its first bad request; null if it is"),
    "valid": (pl.Boolean(), "in the statistics: neither burn-in nor rejected"),
    "warmup_ms": (pl.Float64(), "time of the warm-up with [A, B], one token, ms; null where there is none (cold)"),
    "warmup_prompt_tokens": (pl.Int32(), "length of [A, B]; of text and chat: as the engine's own tokenizer counts it"),
    "warmup_cached_tokens": (pl.Int32(), "tokens the warm-up reused"),
    "query_ms": (pl.Float64(), "time of the query without streaming, one token, ms"),
    "ttft_non_streaming_ms": (pl.Float64(), "the same over HTTP; null in process, where nothing streams differently"),
    "query_prompt_tokens": (pl.Int32(), "length of the query; of text and chat: as the engine's own tokenizer counts it"),
    "query_reusable_tokens": (pl.Int32(), "tokens that it has in common with the warm-up, as in requests"),
    "query_cached_tokens": (pl.Int32(), "tokens the query reused"),
    "query_evaluated_tokens": (pl.Int32(), "tokens the query computed"),
    "query_rejection": (pl.String(), "why the query was not what it was meant to be; null if it was"),
    "rewarm_ms": (pl.Float64(), "time of the second warm-up with [A, B], one token, ms: what the query destroyed"),
    "rewarm_cached_tokens": (pl.Int32(), "tokens the re-warm reused"),
    "ttft_ms": (pl.Float64(), "time to first token of the streaming query, ms"),
    "stream_cached_tokens": (pl.Int32(), "tokens the streaming query reused"),
    "stream_evaluated_tokens": (pl.Int32(), "tokens the streaming query computed"),
    "overhead_ms": (
        pl.Float64(),
        "what streaming adds: client_ms minus the same of the query without streaming, each from its own request's times; null in process",
    ),
    "engine_prompt_ms": (pl.Float64(), "the engine's own time for computing the streaming query's prompt, ms; null if it did not say"),
    "engine_ttft_ms": (pl.Float64(), "the engine's own time to the streaming query's first token, ms; null if it did not say"),
    "client_ms": (pl.Float64(), "ttft_ms minus engine_prompt_ms, or else engine_ttft_ms: what transport and harness add"),
    "throughput_tok_s": (pl.Float64(), "tokens after the first, per second between the first and the last; null below 16 tokens"),
    "foreign_cpu": (pl.Float64(), "as in requests"),
    "workflow_cpu": (pl.Float64(), "as in requests"),
    "steal_cpu": (pl.Float64(), "as in requests"),
    "cpu_mhz": (pl.Float64(), "as in requests"),
    "connect_ms": (pl.Float64(), "time to connect for the streaming query, not part of TTFT, ms; null in process"),
    "started_at": (pl.Datetime("us", "UTC"), "start of the warm-up"),
    "foreign_tokens": (pl.Int32(), "tokens of other prompts that were sent between the warm-up and the query, and again before the stream"),
    "foreign_ms": (
        pl.Float64(),
        "time of the first of them, which takes the place of [A, B] where there is no other: saving it, where it is saved, included; null without",
    ),
    "pace": (
        pl.Float64(),
        "the engine's own time for each token that the streaming query computed, over the median of its cell's valid trials; null if unknown",
    ),
    "off_pace": (
        pl.Boolean(),
        "that is far from 1 (analysis/pace.py): the count or the time of this trial is doubtful; in the statistics all the same. null: not judged",
    ),
}

# metric: (unit, what it is); the rows of summary
METRICS: dict[str, tuple[str, str]] = {
    "ttft_ms": ("ms", "time to first token, streaming"),
    "ttft_non_streaming_ms": ("ms", "time of a one-token answer over HTTP"),
    "overhead_ms": ("ms", "what streaming adds over HTTP"),
    "query_ms": ("ms", "time of a one-token answer"),
    "warmup_ms": ("ms", "warm-up of [A, B]"),
    "rewarm_ms": ("ms", "warm-up of [A, B] after a query"),
    "throughput_tok_s": ("tokens/s", "generation after the first token"),
    "engine_prompt_ms": ("ms", "the engine's own prompt time"),
    "engine_ttft_ms": ("ms", "the engine's own time to first token"),
    "client_ms": ("ms", "time to first token minus the engine's own time"),
    "ttft_cost_ms": ("ms", "TTFT of this state minus that of a hit in the same process"),
    "ttft_cost_ms_per_token": ("ms/token", "the same, divided by the tokens that it computes more"),
    "ttft_degradation_pct": ("%", "TTFT of this state over that of a hit in the same process, minus 1"),
    "query_cost_ms": ("ms", "time of a one-token answer in this state minus that of a hit in the same process"),
    "query_degradation_pct": ("%", "time of a one-token answer in this state over that of a hit in the same process, minus 1"),
}

SUMMARY: Columns = {
    "phase": (pl.String(), "as in requests"),
    "engine": (pl.String(), "as in requests"),
    "interface": (pl.String(), "as in requests"),
    "model": (pl.String(), "as in requests"),
    "sweep": (pl.String(), "as in requests"),
    "variant": (pl.String(), "as in requests"),
    "configuration": (pl.String(), "as in requests"),
    "state": (pl.String(), "as in requests; for ttft_cost_* and ttft_degradation_pct the state that is compared with a hit"),
    "metric": (pl.String(), "one of METRICS"),
    "unit": (pl.String(), "its unit"),
    "n": (pl.Int32(), "valid trials with a value, of the cell and of its partners in other cells' processes"),
    "processes": (pl.Int32(), "engine processes that they come from"),
    "n_rejected": (pl.Int32(), "trials left out because the engine's counts contradict the intended cache state"),
    "n_burn_in": (pl.Int32(), "first trials of a fresh engine, left out"),
    "cached_tokens": (pl.Float64(), "median of the tokens that the streaming query reused; null for comparisons"),
    "evaluated_tokens": (pl.Float64(), "median of the tokens that it computed; null for comparisons"),
    "mean": (pl.Float64(), "mean of all valid trials; null for comparisons"),
    "median": (
        pl.Float64(),
        "mean over processes of their medians (of times the geometric one), or of their comparisons; null without valid trials",
    ),
    "sd": (pl.Float64(), "standard deviation of all valid trials; null below 2 and for comparisons"),
    "sd_processes": (
        pl.Float64(),
        "standard deviation between processes: of times and of the degradation as a share of the value; null below 2",
    ),
    "df": (pl.Int32(), "degrees of freedom of the interval; null without one"),
    "ci_low": (pl.Float64(), "lower end of the 95 % interval of `median` over processes (Student's t); null below 3 processes or 6 trials"),
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
