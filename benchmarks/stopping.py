"""What looking after every trial does to the interval of the median: simulation of `trials: {min, max, precision}`.

.venv/bin/python benchmarks/stopping.py [--rounds 4000]

Coverage is how often the exact 95 % interval at the stop contains the true median; bias is the mean error of the median, in % of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
from numpy.typing import NDArray

from coldprefix.measure.stopping import median_interval, precise_enough

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
DRAWS: dict[str, tuple[Draw, float]] = {
    "normal, 3 %": (lambda rng, n: 100 + rng.normal(0, 3, n), 100.0),
    "normal, 8 %": (lambda rng, n: 100 + rng.normal(0, 8, n), 100.0),
    "long tail": (lambda rng, n: 95 + 5 * rng.lognormal(0, 1, n), 100.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4000)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(1)
    print(f"{'TTFT':<14}{'min':>4}{'max':>5}{'precision':>11}{'trials':>9}{'reached':>9}{'coverage':>10}{'same n, fixed':>15}{'bias':>9}")
    for name, (draw, truth) in DRAWS.items():
        for least, most, precision in ((6, 20, 0.1), (8, 20, 0.1), (12, 20, 0.1), (6, 40, 0.05), (8, 40, 0.05), (12, 40, 0.05)):
            counts, covered, fixed, errors, reached = [], [], [], [], []
            for _ in range(rounds):
                values = draw(rng, most).tolist()
                n = next((n for n in range(least, most) if precise_enough(values[:n], precision)), most)
                found, again = median_interval(values[:n]), median_interval(draw(rng, n).tolist())
                assert found is not None and again is not None
                counts.append(n)
                reached.append(precise_enough(values[:n], precision))
                covered.append(found[0] <= truth <= found[1])
                fixed.append(again[0] <= truth <= again[1])
                errors.append(np.median(values[:n]) / truth - 1)
            print(
                f"{name:<14}{least:>4}{most:>5}{precision:>11.0%}{np.mean(counts):>9.1f}{np.mean(reached):>9.0%}{np.mean(covered):>10.1%}"
                f"{np.mean(fixed):>15.1%}{100 * np.mean(errors):>8.2f}%",
                flush=True,
            )


if __name__ == "__main__":
    main()
