"""How long to settle before a query, and what the original protocol's two pauses of 500 ms cost.

    .venv/bin/python benchmarks/settling.py phase3a phase3b [--model gpt2-standin] [--rounds 12] [--repeats 3]

Run where `snakemake` has set up the engines and the model. First, trials with pauses of 0 to 500 ms, shuffled within each round
on one engine: TTFT against that with 500 ms, as ratios within rounds. Then, in turns on one engine, the original protocol (20
trials, 500 ms) and trials with the pause of config.yaml: how long each takes to intervals of the same width.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import numpy as np

from coldprefix.analysis.statistics import RESAMPLES, SEED
from coldprefix.engines.clock import long_lived
from coldprefix.engines.contract import Session, weights_of
from coldprefix.engines.contract import load as engine_of
from coldprefix.job import Job
from coldprefix.measure import protocol
from coldprefix.measure.cell import open_session
from coldprefix.measure.prompts import draw_trial
from coldprefix.measure.stopping import median_interval
from coldprefix.process.locks import exclusive
from coldprefix.study.checks import load, parse
from coldprefix.study.plan import job_of

SETTLE_MS = (0, 5, 20, 100, 500)
ORIGINAL_TRIALS, ORIGINAL_MS = 20, 500
NUMBERS = itertools.count()  # no prompt comes twice


def trial(session: Session, job: Job, settle_ms: int) -> tuple[float | None, float]:
    """(TTFT in ms, None if rejected; seconds it took)"""
    own = job.model_copy(update={"protocol": job.protocol.model_copy(update={"settle_ms": settle_ms})})
    prompts = draw_trial(job.lengths, job.state, job.model.vocabulary, job.protocol.seed, 0, next(NUMBERS), "fresh")
    began = time.perf_counter()
    rows = protocol.run_trial(session, prompts, own)
    return None if any(row["rejection"] for row in rows) else rows[-1]["ttft_ms"], time.perf_counter() - began


def ratio(values: np.ndarray) -> str:
    """Median of ratios and its 95 % bootstrap interval."""
    drawn = np.median(np.random.default_rng(SEED).choice(values, (RESAMPLES, len(values))), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{np.median(values):.3f} [{low:.3f}, {high:.3f}]"


def pauses(session: Session, job: Job, rounds: int) -> None:
    found: dict[int, list[float]] = {ms: [] for ms in SETTLE_MS}
    order = list(SETTLE_MS)
    for _ in range(rounds):
        random.Random(next(NUMBERS)).shuffle(order)
        got = {ms: trial(session, job, ms)[0] for ms in order}
        if None not in got.values():
            for ms, value in got.items():
                found[ms].append(value or 0.0)
    base = np.array(found[ORIGINAL_MS])
    for ms in SETTLE_MS:
        values = np.array(found[ms])
        print(
            f"{job.phase} {job.state:<5} pause {ms:>4} ms: TTFT {np.median(values):7.1f} ms, / that after {ORIGINAL_MS} ms "
            f"{ratio(values / base)} (n = {len(values)})",
            flush=True,
        )


def width(values: np.ndarray, n: int) -> float:
    """Expected width of the median's 95 % interval from n trials, as a share of the median: mean over resamples of the values."""
    rng = np.random.default_rng(SEED)
    drawn = [rng.choice(values, n).tolist() for _ in range(500)]
    found = [median_interval(sample) or (0.0, float("inf")) for sample in drawn]
    return float(np.mean([high - low for low, high in found]) / np.median(values))


def against_original(session: Session, job: Job, repeats: int) -> None:
    """Blocks of 20 trials of each protocol in turns; how long each takes to intervals of the same width."""
    now_ms = job.protocol.settle_ms
    values: dict[int, list[float]] = {ORIGINAL_MS: [], now_ms: []}
    seconds: dict[int, list[float]] = {ORIGINAL_MS: [], now_ms: []}
    for _, ms in itertools.product(range(repeats), values):
        for _ in range(ORIGINAL_TRIALS):
            ttft, taken = trial(session, job, ms)
            seconds[ms].append(taken)
            values[ms] += [ttft] if ttft is not None else []
    each = {ms: float(np.mean(taken)) for ms, taken in seconds.items()}
    target = width(np.array(values[ORIGINAL_MS]), ORIGINAL_TRIALS)
    needed = next((n for n in range(6, 201) if width(np.array(values[now_ms]), n) <= target), 200)
    original_s, now_s = ORIGINAL_TRIALS * each[ORIGINAL_MS], needed * each[now_ms]
    print(
        f"{job.phase} {job.state:<5} original: {ORIGINAL_TRIALS} trials of {each[ORIGINAL_MS]:.2f} s, {original_s:.0f} s, interval {target:.1%} of the "
        f"median; now: {needed} trials of {each[now_ms]:.2f} s to the same, {now_s:.0f} s: {original_s / now_s:.1f} times as fast",
        flush=True,
    )
    for precision in (0.1, 0.05):
        enough = next((n for n in range(6, 201) if width(np.array(values[now_ms]), n) <= precision), None)
        text = (
            f"{enough} trials, {enough * each[now_ms]:.0f} s: {original_s / (enough * each[now_ms]):.1f} times as fast"
            if enough
            else "more than 200 trials"
        )
        print(f"{job.phase} {job.state:<5}   to {precision:.0%}: {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phases", nargs="+")
    parser.add_argument("--model", default="gpt2-standin")
    parser.add_argument("--folder", type=Path, default=ROOT, help="that holds models/ (default: the checkout)")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--job", help=argparse.SUPPRESS)  # how this program calls itself in an engine's environment
    arguments = parser.parse_args()
    if arguments.job is None:
        config = parse({**load(ROOT / "config.yaml").model_dump(), "model": arguments.model, "experiments": ["main"]})
        cells = [c for p in arguments.phases for c in config.all_cells() if (c.phase, c.configuration) == (p, config.configurations[0])]
        for cell in cells:
            job = job_of(config, cell)
            python = ROOT / "envs" / job.environment / ".venv" / "bin" / "python"
            subprocess.run([python, *sys.argv, "--job", job.model_dump_json()], check=True)
        return
    job = Job.model_validate_json(arguments.job)
    weights = weights_of(arguments.folder / "models", arguments.model, engine_of(job.engine).weights)
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"coldprefix-settling-{os.getpid()}.log"  # noqa: S108
    with exclusive("benchmarks/settling.py"), open_session(job, weights, log, None) as session, long_lived():
        for _ in range(job.protocol.burn_in):
            trial(session, job, 0)
        if arguments.rounds:
            pauses(session, job, arguments.rounds)
        if arguments.repeats and job.state == "miss":
            against_original(session, job, arguments.repeats)
    log.unlink()


if __name__ == "__main__":
    main()
