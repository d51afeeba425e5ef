"""How often a 95 % interval holds the truth, by simulation: the design as it is, beside the one that it replaced.

.venv/bin/python benchmarks/coverage.py [--rounds 600]

A world: engine starts differ by so much (standard deviation, a factor on all times of a process), the machine drifts by so much
(an Ornstein-Uhlenbeck factor that forgets in 240 s), a trial has 3 % of noise of its own. A miss takes four times as long as a hit.
In "own" worlds half of the variance of a start is another one for each state, so that it does not cancel between partners.

- new: two jobs of three processes each, the jobs up to ten minutes apart; in each process a burn-in and four rounds, hit and miss in random
  order; the ratio's interval by analysis/statistics.py, and that of the hit's own time.
- new, one server: the same, but the two jobs visit the same three processes, as with a shared `vllm serve`.
- new, until 10 %: with `processes: {min: 3, max: 8, precision: 0.1}`, which looks after every process.
- old: a process for each state, one after the other, 10 to 24 trials each until the median is known to 10 %; percentile bootstrap of the
  ratio of medians.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coldprefix.analysis import statistics
from coldprefix.measure.stopping import precise_enough

NOISE = 0.03
FORGETS_S = 240.0
RATIO = 4.0
HIT_MS = 100.0
TRIAL_S, START_S, APART_S = 1.5, 5.0, 600.0
RESAMPLES = 399
Rng = np.random.Generator


class World:
    """What a machine does to times: a factor at each moment and for each start."""

    def __init__(self, rng: Rng, starts: float, drift: float, own: bool) -> None:
        self._rng, self._starts, self._drift, self._own = rng, starts, drift, own
        self._at, self._log = 0.0, drift * rng.standard_normal()

    def start(self) -> dict[str, float]:
        """Log factors of one process on each state; one process sees both."""
        common, *each = self._rng.standard_normal(3) * self._starts
        if not self._own:
            return {"hit": common, "miss": common}
        return {state: (common + own) / np.sqrt(2) for state, own in zip(("hit", "miss"), each, strict=True)}

    def at(self, seconds: float) -> float:
        """The drift's log factor; times must not fall."""
        kept = np.exp(-(seconds - self._at) / FORGETS_S)
        self._log = kept * self._log + self._drift * np.sqrt(1 - kept**2) * self._rng.standard_normal()
        self._at = seconds
        return float(self._log)

    def trial(self, state: str, process: dict[str, float], seconds: float) -> float:
        base = HIT_MS * (RATIO if state == "miss" else 1)
        return float(base * np.exp(process[state] + self.at(seconds) + NOISE * self._rng.standard_normal()))


Row = dict[str, object]


def job(world: World, rng: Rng, name: str, began: float, processes: list[dict[str, float]] | None, asked: tuple[int, int]) -> list[Row]:
    """Rows of one measuring job; ``processes``: of shared servers. ``asked``: fewest and most."""
    rows: list[Row] = []
    clock = began
    found: dict[str, list[list[float]]] = {"hit": [], "miss": []}
    for number in range(asked[1]):
        factors = processes[number] if processes else world.start()
        clock += START_S
        times: dict[str, list[float]] = {"hit": [], "miss": []}
        for trial in range(5):
            for state in rng.permutation(["hit", "miss"]):
                clock += TRIAL_S
                ms = world.trial(state, factors, clock)
                if trial:
                    times[state].append(ms)
                    unit = f"{number}" if processes else f"{name} {number}"
                    rows.append({"engine_process": unit, "job": name, "process": number, "state": state, "ttft_ms": ms})
        for state, values in times.items():
            found[state].append(values)
        if number + 1 >= asked[0] and precise_enough(found["miss"], found["hit"], 0.1):
            break
    return rows


def new(world: World, rng: Rng, shared: bool, asked: tuple[int, int] = (3, 3)) -> tuple[bool, bool]:
    """(does the ratio's interval hold the truth?, does that of a hit's time?)"""
    processes = [world.start() for _ in range(3)] if shared else None
    gap = rng.uniform(60, APART_S)
    table = pl.DataFrame(job(world, rng, "hit", 0, processes, asked) + job(world, rng, "miss", gap + 200, processes, asked))
    hit, miss = (table.filter(pl.col("state") == state) for state in ("hit", "miss"))
    return holds(statistics.ratio(miss, hit), RATIO), holds(statistics.estimate(hit, "ttft_ms"), HIT_MS)


def holds(found: statistics.Estimate, truth: float) -> bool:
    assert found.low is not None and found.high is not None
    return found.low <= truth <= found.high


def old(world: World, rng: Rng) -> bool:
    """A cell each, one after the other."""
    clock, cells = 0.0, []
    for state in ("hit", "miss"):
        process = world.start()
        clock += START_S
        values: list[float] = []
        while len(values) < 24:
            clock += TRIAL_S
            values.append(world.trial(state, process, clock))
            if len(values) >= 10:
                low, high = statistics.median_interval(values) or (0.0, np.inf)
                if high - low <= 0.1 * np.median(values):
                    break
        cells.append(np.array(values))
        clock += 20
    drawn = [np.median(rng.choice(values, (RESAMPLES, len(values))), axis=1) for values in cells]
    low, high = np.percentile(drawn[1] / drawn[0], [2.5, 97.5])
    return bool(low <= RATIO <= high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=600)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(1)
    print(
        f"share of 95 % intervals that hold the truth, {rounds} runs each; standard error at 95 %: {100 * np.sqrt(0.05 * 0.95 / rounds):.1f} points"
    )
    head = ("new", "new, one server", "new, until 10 %", "a hit's own time", "old")
    print(f"{'starts':>7}{'drift':>7}  {'state':<7}" + "".join(f"{name:>18}" for name in head))
    for own in (False, True):
        for starts in (0.0, 0.03, 0.05, 0.08, 0.12):
            for drift in (0.0, 0.02, 0.05):
                if own and not starts:
                    continue
                held: NDArray[np.float64] = np.zeros(5)
                for _ in range(rounds):

                    def world(starts: float = starts, drift: float = drift, own: bool = own) -> World:
                        return World(rng, starts, drift, own)

                    ratio, time = new(world(), rng, shared=False)
                    more = new(world(), rng, shared=True)[0], new(world(), rng, shared=False, asked=(3, 8))[0]
                    held += np.array([ratio, *more, time, old(world(), rng)], dtype=float)
                line = f"{starts:>7.0%}{drift:>7.0%}  {'own' if own else 'common':<7}"
                print(line + "".join(f"{share:>18.1%}" for share in held / rounds), flush=True)


if __name__ == "__main__":
    main()
