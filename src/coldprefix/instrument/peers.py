"""The harness beside the engines' own instruments: llama-bench for llama.cpp, vLLM's own first-token time for vLLM."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl

from coldprefix.analysis.statistics import student
from coldprefix.engines.clock import long_lived
from coldprefix.engines.llamacpp.build import ensure_build
from coldprefix.engines.llamacpp.engine import settings_of
from coldprefix.engines.reuse import exactly
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job, Lengths
from coldprefix.measure.cell import open_session
from coldprefix.measure.prompts import draw_trial
from coldprefix.measure.verify import rejection
from coldprefix.process import supervise
from coldprefix.process.server import clean_environment

TOLERANCE = 0.03  # more than this is explained

ROUNDS: dict[str, tuple[pl.DataType, str]] = {
    "round": (pl.Int32(), "0, 1, ...: in each, all combinations in random order"),
    "order": (pl.Int32(), "place in the run"),
    "phase": (pl.String(), "backend whose miss was timed; null for llama-bench"),
    "tokens": (pl.Int32(), "length of the prompt, all of it computed"),
    "ttft_ms": (pl.Float64(), "TTFT as the harness measured it, or llama-bench's time for the prompt, ms"),
    "engine_prompt_ms": (pl.Float64(), "the engine's own time for the prompt, ms"),
    "rejection": (pl.String(), "why the miss was none; null if it was"),
}
PEERS: dict[str, tuple[pl.DataType, str]] = {
    "phase": (pl.String(), "backend"),
    "peer": (pl.String(), "llama-bench, or vLLM's own time to first token"),
    "tokens": (pl.Int32(), "prompt tokens computed"),
    "n": (pl.Int32(), "pairs"),
    "peer_ms": (pl.Float64(), "median of the peer's time"),
    "ttft_ms": (pl.Float64(), "median of the harness's TTFT"),
    "ratio": (pl.Float64(), "median of TTFT / peer's time, by pairs"),
    "ratio_low": (pl.Float64(), "its 95 % interval over rounds or trials (Student's t)"),
    "ratio_high": (pl.Float64(), "its 95 % interval over rounds or trials (Student's t)"),
    "outside_ms": (pl.Float64(), "median of TTFT minus the engine's own time for the prompt: sampling, transport, harness"),
    "inside_ratio": (pl.Float64(), "median of (TTFT - outside_ms) / peer's time, by pairs: what is left when that is taken out"),
    "inside_low": (pl.Float64(), "its 95 % interval over rounds or trials (Student's t)"),
    "inside_high": (pl.Float64(), "its 95 % interval over rounds or trials (Student's t)"),
}


def llama_bench(job: Job, gguf: Path, tokens: int) -> float:
    """Milliseconds that llama-bench takes for a prompt of so many tokens, once, after its own warm-up.

    The same build, threads, batch sizes and flash attention as the job's; its context is as long as the prompt.
    """
    settings = settings_of(job)
    layers = "0" if job.accelerator == "cpu" else "99" if settings.gpu_layers < 0 else str(settings.gpu_layers)
    command = [str(ensure_build(job.accelerator) / "llama-bench"), "-m", str(gguf.absolute()), "-p", str(tokens), "-n", "0", "-r", "1"]
    command += ["-b", str(settings.batch_tokens), "-ub", str(settings.ubatch_tokens), "-t", str(job.threads), "-ngl", layers]
    command += ["-fa", str(int(settings.flash_attention)), "-o", "json"]
    try:
        done = supervise.run(command, job.protocol.timeout_s, env=clean_environment({}))
    except subprocess.TimeoutExpired:
        raise ColdprefixError(f"llama-bench took longer than {job.protocol.timeout_s:.0f} s (timeout_s) for {tokens} tokens") from None
    try:
        (result,) = json.loads(done.stdout)
        (nanoseconds,) = result["samples_ns"]
        if result["n_prompt"] != tokens or result["n_gen"] != 0:
            raise ValueError(result)
    except (ValueError, KeyError, TypeError):
        raise ColdprefixError(f"llama-bench exited with code {done.returncode}: {(done.stderr or done.stdout)[-800:]}") from None
    return float(nanoseconds) / 1e6


def rounds(jobs: Sequence[Job], gguf: Path, log: Path, lengths: Sequence[Lengths], count: int) -> pl.DataFrame:
    """Misses on both interfaces of llama.cpp and llama-bench, interleaved in one run. Returns ROUNDS."""
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        sessions = {
            job.phase: (job, stack.enter_context(open_session(job, gguf, log.with_suffix(f".{job.phase}.log"), None))) for job in jobs
        }
        stack.enter_context(long_lived())
        plan = [(phase, own) for phase in [None, *sessions] for own in lengths]
        for number in range(-1, count):  # round -1 is burn-in
            random.Random(number).shuffle(plan)
            for phase, own in plan:
                tokens = own.B + own.Q
                row: dict[str, Any] = {"round": number, "order": len(rows), "phase": phase, "tokens": tokens}
                if phase is None:
                    row |= {"ttft_ms": llama_bench(jobs[0], gguf, tokens)}
                else:
                    job, session = sessions[phase]
                    prompts = draw_trial(own, "miss", job.model.vocabulary, job.protocol.seed, 1, number + 1, "fresh")
                    session.complete(prompts.warm, 1, stream=False)
                    done = session.complete(prompts.stream, 2, stream=True)
                    row |= {"ttft_ms": done.ttft_ms, "engine_prompt_ms": done.engine_prompt_ms}
                    row |= {"rejection": rejection(done, tokens, exactly(0), 2, streamed=True)}
                rows.append(row)
    frame = pl.DataFrame(rows, schema={name: dtype for name, (dtype, _) in ROUNDS.items()})
    return frame.filter(pl.col("round") >= 0)


def pairs_of_rounds(found: pl.DataFrame) -> pl.DataFrame:
    """A row per miss and the llama-bench run of its round: phase, peer, tokens, ttft_ms, engine_prompt_ms, peer_ms."""
    peer = found.filter(pl.col("phase").is_null()).select("round", "tokens", peer_ms="ttft_ms")
    misses = found.filter(pl.col("phase").is_not_null() & pl.col("rejection").is_null())
    return misses.join(peer, on=["round", "tokens"]).select(
        "phase", pl.lit("llama-bench").alias("peer"), "tokens", "ttft_ms", "engine_prompt_ms", "peer_ms"
    )


def pairs_of_trials(trials: pl.DataFrame) -> pl.DataFrame:
    """The same for the main experiment's valid misses on vLLM, whose peer is the engine's own time to first token."""
    own = trials.filter((pl.col("engine") == "vllm") & (pl.col("state") == "miss") & (pl.col("variant") == "main") & pl.col("valid"))
    return own.filter(pl.col("engine_ttft_ms").is_not_null()).select(
        "phase",
        pl.lit("vLLM's own").alias("peer"),
        pl.col("stream_evaluated_tokens").cast(pl.Int32).alias("tokens"),
        "ttft_ms",
        engine_prompt_ms="engine_ttft_ms",
        peer_ms="engine_ttft_ms",
    )


def summarise(pairs: pl.DataFrame) -> pl.DataFrame:
    """Ratios with their intervals (PEERS), one row per backend and length."""
    rows = []
    for (phase, peer, tokens), own in pairs.group_by(["phase", "peer", "tokens"], maintain_order=True):
        outside = (own["ttft_ms"] - own["engine_prompt_ms"]).median()
        whole = student((own["ttft_ms"] / own["peer_ms"]).to_list(), None, "log")
        inside = student(((own["ttft_ms"] - outside) / own["peer_ms"]).to_list(), None, "linear")
        rows.append(
            {
                "phase": phase,
                "peer": peer,
                "tokens": tokens,
                "n": own.height,
                "peer_ms": own["peer_ms"].median(),
                "ttft_ms": own["ttft_ms"].median(),
                "ratio": whole.value,
                "ratio_low": whole.low,
                "ratio_high": whole.high,
                "outside_ms": outside,
                "inside_ratio": inside.value,
                "inside_low": inside.low,
                "inside_high": inside.high,
            }
        )
    return pl.DataFrame(rows, schema={name: dtype for name, (dtype, _) in PEERS.items()}).sort("phase", "tokens")


def table(summary: pl.DataFrame) -> str:
    """The ratios as text, and what is to be said of each above TOLERANCE."""
    lines = [
        f"{'phase':<9}{'tokens':>7}{'n':>5}  {'peer':<14}{'peer ms':>9}{'TTFT ms':>9}  {'TTFT / peer':<24}{'outside ms':>11}  without that"
    ]
    notes = []
    for row in summary.iter_rows(named=True):
        ratio, inside = (
            f"{row[k]:.3f}" + ("" if row[f"{n}_low"] is None else f" [{row[f'{n}_low']:.3f}, {row[f'{n}_high']:.3f}]")
            for k, n in (("ratio", "ratio"), ("inside_ratio", "inside"))
        )
        lines.append(
            f"{row['phase']:<9}{row['tokens']:>7}{row['n']:>5}  {row['peer']:<14}{row['peer_ms']:>9.1f}{row['ttft_ms']:>9.1f}  {ratio:<24}"
            f"{row['outside_ms']:>11.2f}  {inside}"
        )
        if abs(row["ratio"] - 1) > TOLERANCE:
            where = f"{row['phase']}, {row['tokens']} tokens: TTFT differs by {row['ratio'] - 1:+.1%}"
            share = f"{row['outside_ms']:.2f} ms of it are outside the engine's own time for the prompt (sampling, transport, harness)"
            left = f"without them {row['inside_ratio'] - 1:+.1%} is left"
            verdict = "" if abs(row["inside_ratio"] - 1) <= TOLERANCE else ", MORE THAN 3 %"
            if row["ratio_low"] is None or row["ratio_low"] <= 1 <= row["ratio_high"]:
                verdict = "; the interval contains no difference at all: noise, or too few rounds (peer_rounds)"
            notes.append(f"{where}; {share}; {left}{verdict}")
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"
