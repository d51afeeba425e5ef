"""A/A: how often is an effect found where there is none?

.venv/bin/python benchmarks/false_alarms.py                                              by simulation
.venv/bin/python benchmarks/false_alarms.py --trials results/experiments/aa/trials.parquet    and from real runs

A false alarm is a 95 % interval of the effect (miss over hit, here a cell over the same cell again) that does not contain 0. Real
runs come from  snakemake results/experiments/aa/trials.parquet --configfile benchmarks/aa.yaml , which measures one cell of each
backend eight times. All pairs of them are compared; pairs share cells, so the interval of the rate
is from resampling cells.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
import polars as pl

from coldprefix.analysis import statistics
from coldprefix.analysis.caveats import caveats_of
from coldprefix.analysis.statistics import Values, degradation_pct
from coldprefix.data import tables
from coldprefix.data.parquet import read_tables

Generator = np.random.Generator
# What TTFT has been seen to do, in % of it: noise of a trial, differences between engine starts, a slow drift.
WORLDS: dict[str, Callable[[Generator, int, int], list[Values]]] = {
    "normal, 3 %": lambda rng, r, n: [100 + rng.normal(0, 3, n) for _ in range(r)],
    "long tail": lambda rng, r, n: [100 + rng.lognormal(0, 1, n) for _ in range(r)],
    "normal, starts differ by 1 %": lambda rng, r, n: [100 + rng.normal(0, 1) + rng.normal(0, 3, n) for _ in range(r)],
    "normal, starts differ by 3 %": lambda rng, r, n: [100 + rng.normal(0, 3) + rng.normal(0, 3, n) for _ in range(r)],
}


def alarm(one: list[Values], other: list[Values]) -> bool:
    found = degradation_pct(one, other)
    assert found.ci_low is not None and found.ci_high is not None
    return not found.ci_low <= 0 <= found.ci_high


def simulate(rounds: int) -> None:
    statistics.RESAMPLES = 999  # a tenth, so that there can be more rounds; the rate is the same
    rng = np.random.default_rng(1)
    print(f"simulated, {rounds} comparisons each; 5 % is right")
    for name, draw in WORLDS.items():
        for replicates, n in ((1, 8), (1, 20), (3, 8), (5, 8), (10, 8)):
            rate = np.mean([alarm(draw(rng, replicates, n), draw(rng, replicates, n)) for _ in range(rounds)])
            error = 1.96 * np.sqrt(rate * (1 - rate) / rounds)
            print(f"  {name:<30} {replicates:>2} replicates of {n:>2} trials: {rate:6.1%} +- {error:.1%}", flush=True)


def real(trials: pl.DataFrame) -> None:
    print("\nreal runs of the same cell")
    rng = np.random.default_rng(2)
    for (phase,), own in trials.group_by("phase", maintain_order=True):
        cells = {name: statistics.groups(part.filter("valid"), "ttft_ms") for (name,), part in own.group_by("variant", maintain_order=True)}
        names = list(cells)
        found = {frozenset(pair): alarm(*(cells[name] for name in pair)) for pair in itertools.combinations(names, 2)}
        rates = []
        for _ in range(2000):
            drawn = rng.choice(names, len(names))
            pairs = [found[frozenset(pair)] for pair in itertools.combinations(drawn, 2) if pair[0] != pair[1]]
            rates.append(np.mean(pairs))
        low, high = np.percentile(rates, [2.5, 97.5])
        medians = np.array([np.median(np.concatenate(values)) for values in cells.values()])
        effects = [abs(100 * (b / a - 1)) for a, b in itertools.combinations(medians, 2)]
        warned = caveats_of(own, [])["cell"].n_unique()
        print(
            f"  {phase}: {len(names)} runs, {len(found)} pairs: {np.mean(list(found.values())):.0%} [{low:.0%}, {high:.0%}] false alarms; apparent effects: "
            f"median {np.median(effects):.1f} %, largest {max(effects):.1f} %; {warned} runs carried a warning"
        )
        # Several starts of one cell as replicates of it: half of the runs against the other half.
        halves = []
        for _ in range(200):
            order = rng.permutation(len(names))
            one, other = ([values for i in part for values in cells[names[i]]] for part in np.array_split(order, 2))
            halves.append(alarm(one, other))
        print(f"  {phase}: half of the runs as replicates against the other half: {np.mean(halves):.0%} false alarms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--trials", type=Path, help="of real runs")
    arguments = parser.parse_args()
    if arguments.rounds:
        simulate(arguments.rounds)
    if arguments.trials:
        real(read_tables([arguments.trials], tables.TRIALS))


if __name__ == "__main__":
    main()
