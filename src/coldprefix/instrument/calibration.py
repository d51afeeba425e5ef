"""Samples of the harness against the null engines, and what they say about its clock."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tqdm import tqdm

from coldprefix.analysis.statistics import median_interval
from coldprefix.instrument.null_engines import NullEngine, NullPython, null_llama_server, null_vllm_server

TTFTS_MS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
# tokens/s -> tokens generated for it: about half a second each, and enough tokens to speak of a rate
RATES = {1.0: 3, 10.0: 6, 50.0: 26, 200.0: 101, 500.0: 251, 1000.0: 501, 2000.0: 1001}
PROMPT_TOKENS = 512
SEED = 0

# Targets: bias and error that cannot change a conclusion drawn from differences of 1 ms and ratios of 1 %.
MEDIAN_BIAS_MS = 0.15
P99_BIAS_MS = 1.0
THROUGHPUT_ERROR_PCT = 0.5

SAMPLES: dict[str, tuple[pl.DataType, str]] = {
    "beside": (
        pl.Int32(),
        "busy threads beside it, as an engine's that compute while the first token must wake this program; 0: idle cores",
    ),
    "engine": (pl.String(), "which null engine: llama-server, vllm serve, or python (in process)"),
    "scripted_ttft_ms": (pl.Float64(), "time to first token that was asked for, ms"),
    "scripted_tok_s": (pl.Float64(), "rate that was asked for, tokens/s"),
    "tokens": (pl.Int32(), "tokens generated"),
    "order": (pl.Int32(), "place in the run: all combinations are interleaved"),
    "connect_ms": (pl.Float64(), "time to connect, not part of TTFT, ms; null in process"),
    "true_ttft_ms": (pl.Float64(), "from the null engine's receiving the whole request to its sending the first token, ms"),
    "ttft_ms": (pl.Float64(), "TTFT as the harness measured it, ms"),
    "bias_ms": (pl.Float64(), "ttft_ms minus true_ttft_ms: sending the request and seeing the first token, ms"),
    "seen_after_ms": (pl.Float64(), "from the null engine's sending the first token to the harness's reading of the clock, ms"),
    "true_tok_s": (pl.Float64(), "rate at which the null engine sent, tokens/s"),
    "tok_s": (pl.Float64(), "rate as the harness measured it, tokens/s"),
    "error_pct": (pl.Float64(), "100 x (tok_s / true_tok_s - 1)"),
}


@contextmanager
def busy(threads: int) -> Iterator[None]:
    """So many programs compute without a pause inside."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(threads)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def take(
    log: Path, samples: int, ttfts_ms: tuple[float, ...] = TTFTS_MS, rates: Mapping[float, int] = RATES, beside: int = 0
) -> pl.DataFrame:
    """Measure the null engines in one interleaved run.

    Args:
        samples: of each TTFT; a tenth of it, at least one, of each rate.
        beside: busy threads meanwhile.

    Returns:
        One row per sample (SAMPLES).
    """
    openers: dict[str, Callable[[], NullEngine]] = {
        "llama-server": lambda: null_llama_server(log.with_suffix(".llamacpp.log")),
        "vllm serve": lambda: null_vllm_server(log.with_suffix(".vllm.log")),
        "python": NullPython,
    }
    engines: dict[str, NullEngine] = {}
    rows = []
    try:
        for name, opener in openers.items():
            engines[name] = opener()
        plan = [(name, ttft_ms, 1000.0, 2) for name in engines for ttft_ms in ttfts_ms for _ in range(samples)]
        plan += [(name, 5.0, rate, tokens) for name in engines for rate, tokens in rates.items() for _ in range(max(1, samples // 10))]
        random.Random(SEED).shuffle(plan)
        prompt = list(range(PROMPT_TOKENS))
        for engine in engines.values():  # the first answers of a process are slower: connections, imports
            for _ in range(5):
                engine.script(1.0, 1.0)
                engine.complete(prompt, 2, stream=True)
        described = f"calibration{f' beside {beside} busy threads' if beside else ''}"
        for order, (name, ttft_ms, rate, tokens) in enumerate(tqdm(plan, desc=described, unit="sample", dynamic_ncols=True)):
            engine = engines[name]
            engine.script(ttft_ms, 1e3 / rate)
            done = engine.complete(prompt, tokens, stream=True)
            truth, times = engine.truth, done.token_times_ms
            assert len(times) == len(truth.sent) == tokens and done.ttft_ms is not None
            measured_rate = 1e3 * (tokens - 1) / (times[-1] - times[0]) if times[-1] > times[0] else None
            rows.append(
                {
                    "beside": beside,
                    "engine": name,
                    "scripted_ttft_ms": ttft_ms,
                    "scripted_tok_s": rate,
                    "tokens": tokens,
                    "order": order,
                    "connect_ms": done.connect_ms,
                    "true_ttft_ms": truth.ttft_ms,
                    "ttft_ms": done.ttft_ms,
                    "bias_ms": done.ttft_ms - truth.ttft_ms,
                    "seen_after_ms": (engine.zero - truth.sent[0]) * 1e3 + done.ttft_ms,
                    "true_tok_s": truth.tokens_per_s,
                    "tok_s": measured_rate,
                    "error_pct": 100 * (measured_rate / truth.tokens_per_s - 1) if measured_rate and tokens > 2 else None,
                }
            )
    finally:
        for engine in engines.values():
            engine.close()
    return pl.DataFrame(rows, schema={name: dtype for name, (dtype, _) in SAMPLES.items()})


def summarise(samples: pl.DataFrame) -> pl.DataFrame:
    """One row per null engine and load, the loaded ones first: bias of TTFT (median with its 95 % interval, 1st and 99th percentile, standard deviation), connecting, error of throughput."""
    rows = []
    ordered = samples.sort("beside", descending=True, maintain_order=True)
    for (beside, name), own in ordered.group_by("beside", "engine", maintain_order=True):
        bias = own.filter(pl.col("tokens") == 2)["bias_ms"].to_numpy()
        low, high = median_interval(bias.tolist()) or (None, None)
        errors = own["error_pct"].drop_nulls().to_numpy()
        rows.append(
            {
                "beside": beside,
                "engine": name,
                "n_ttft": len(bias),
                "bias_ms": float(np.median(bias)),
                "bias_low_ms": low,
                "bias_high_ms": high,
                "bias_p1_ms": float(np.percentile(bias, 1)),
                "bias_p99_ms": float(np.percentile(bias, 99)),
                "bias_sd_ms": float(np.std(bias, ddof=1)),
                "seen_after_ms": own["seen_after_ms"].median(),
                "connect_ms": own["connect_ms"].median(),
                "n_throughput": len(errors),
                "throughput_error_pct": float(np.median(errors)) if len(errors) else None,
                "throughput_worst_pct": float(errors[np.argmax(np.abs(errors))]) if len(errors) else None,
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def misses(summary: pl.DataFrame) -> list[str]:
    """Targets that were not met, one sentence each."""
    found = []
    for row in summary.iter_rows(named=True):
        for value, target, what in (
            (abs(row["bias_ms"]), MEDIAN_BIAS_MS, "median bias of TTFT in ms"),
            (row["bias_p99_ms"], P99_BIAS_MS, "99th percentile of the bias in ms"),
            (abs(row["throughput_error_pct"] or 0.0), THROUGHPUT_ERROR_PCT, "median error of throughput in %"),
        ):
            if value > target:
                found.append(f"{_named(row)}: {what} is {value:.2f}, the target {target:g}; is the machine busy?")
    return found


def _named(row: Mapping[str, Any]) -> str:
    return f"{row['engine']}, {row['beside']} busy threads beside it" if row["beside"] else str(row["engine"])


def table(summary: pl.DataFrame) -> str:
    """The summary as text for the terminal."""
    lines = [
        f"{'null engine':<14}{'busy threads':>13}{'n':>5}  {'bias of TTFT, ms':<28}{'p99':>7}{'sd':>7}{'seen after':>12}{'connect':>9}  throughput error, %"
    ]
    for row in summary.iter_rows(named=True):
        bias = f"{row['bias_ms']:.3f} [{row['bias_low_ms']:.3f}, {row['bias_high_ms']:.3f}]"
        connect = "-" if row["connect_ms"] is None else f"{row['connect_ms']:.3f}"
        lines.append(
            f"{row['engine']:<14}{row['beside']:>13}{row['n_ttft']:>5}  {bias:<28}{row['bias_p99_ms']:>7.3f}{row['bias_sd_ms']:>7.3f}"
            f"{row['seen_after_ms']:>12.3f}{connect:>9}  median {row['throughput_error_pct']:.3f}, worst {row['throughput_worst_pct']:.3f}"
        )
    return "\n".join(lines) + "\n"
