"""How long to settle before a query.

    .venv/bin/python benchmarks/settling.py phase3a phase3b [--model gpt2-standin] [--rounds 12]

Run where `snakemake` has set up the engines and the model. Trials with pauses of 0 to 500 ms, shuffled within each round on one engine:
TTFT against that with the original protocol's 500 ms, as ratios within rounds.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import numpy as np

from coldprefix.engines.clock import long_lived
from coldprefix.engines.contract import Session, weights_of
from coldprefix.engines.contract import load as engine_of
from coldprefix.job import Job
from coldprefix.measure import protocol
from coldprefix.measure.cell import open_session
from coldprefix.measure.prompts import draw_trial
from coldprefix.process.locks import exclusive
from coldprefix.study.checks import load, parse
from coldprefix.study.plan import job_of

SETTLE_MS = (0, 5, 20, 100, 500)
ORIGINAL_MS = 500
RESAMPLES, SEED = 9999, 0
NUMBERS = itertools.count()  # no prompt comes twice


def trial(session: Session, job: Job, settle_ms: int) -> float | None:
    """TTFT in ms, None if rejected"""
    own = job.model_copy(update={"protocol": job.protocol.model_copy(update={"settle_ms": settle_ms})})
    prompts = draw_trial(job.kinds[0].lengths, job.state, job.model.vocabulary, job.protocol.seed, 0, next(NUMBERS), "fresh")
    rows = protocol.run_trial(session, prompts, own, job.protocol.stream_tokens)
    return None if any(row["rejection"] for row in rows) else rows[-1]["ttft_ms"]


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
        got = {ms: trial(session, job, ms) for ms in order}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phases", nargs="+")
    parser.add_argument("--model", default="gpt2-standin")
    parser.add_argument("--folder", type=Path, default=ROOT, help="that holds models/ (default: the checkout)")
    parser.add_argument("--rounds", type=int, default=12)
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
        pauses(session, job, arguments.rounds)
    log.unlink()


if __name__ == "__main__":
    main()
