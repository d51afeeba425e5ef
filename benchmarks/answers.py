"""How often a right cache is taken for a wrong one: the check of answers, again and again, on each architecture.

    cd FOLDER    # of a run with --config experiments=architectures, whose plan and models it uses
    ~/.cache/coldprefix/environments/llamacpp-KEY/bin/python CHECKOUT/benchmarks/answers.py --phase phase3a --checks 20

Prints for each cell and state the largest and the median difference of the log-probabilities after a reuse and cold, as a share of what
another context makes, and how many are above the tolerance of measure/answers.py: the false-alarm rate, since nothing is wrong here.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from coldprefix.engines.contract import load, weights_of
from coldprefix.files import read_json
from coldprefix.job import Job
from coldprefix.measure import answers
from coldprefix.measure.cell import open_session
from coldprefix.process.locks import exclusive
from coldprefix.process.program import run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phase", required=True)
    parser.add_argument("--checks", type=int, default=20, help="of each state")
    parser.add_argument("--plan", type=Path, default=Path("results/plan.json"))
    parser.add_argument("--models", type=Path, default=Path("models"))
    arguments = parser.parse_args()
    jobs = [Job.model_validate(job) for job in read_json(arguments.plan)["cells"].values() if job["phase"] == arguments.phase]
    print(f"{'cell':<48} {'state':<20} {'checks':>6} {'median':>8} {'largest':>8} {'alarms':>7}", flush=True)
    alarms = total = 0
    for job in jobs:
        own = job.model_copy(update={"protocol": job.protocol.model_copy(update={"answers": "record"})})
        shares = shares_of(own, arguments.models, arguments.checks)
        for state, found in shares.items():
            above = sum(share > answers.TOLERANCE for share in found)
            alarms, total = alarms + above, total + len(found)
            print(f"{job.cell:<48} {state:<20} {len(found):>6} {statistics.median(found):>8.4f} {max(found):>8.4f} {above:>7}", flush=True)
    print(f"{alarms} false alarms in {total} checks")


def shares_of(job: Job, models: Path, checks: int) -> dict[str, list[float]]:
    """For each state of which something is reused: differences as a share of another context's."""
    found: dict[str, list[float]] = {}
    weights = weights_of(models, job.model.name, load(job.engine).weights)
    with exclusive(job.cell, None), open_session(job, weights, Path("results/logs/answers.log"), None) as session:
        for number in range(checks):
            for record in answers.check_answers(session, job, 0, 16 * number) or []:
                if record["difference"] is not None:
                    found.setdefault(record["state"], []).append(record["difference"] / record["of_another_context"])
    return found


if __name__ == "__main__":
    run_main(main)
