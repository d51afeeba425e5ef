"""Start a backend, read back what is really in force, stop it. Runs in the engine's environment.

    python preflight.py --job JOB --model DIR --gguf FILE --out OUT.json --log FILE

Also sends one prompt twice and checks that the engine reports its reuse: without that, no trial could be verified.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.setup import environments
from coldprefix.engines.open import open_session
from coldprefix.errors import ColdprefixError, naming, run_main
from coldprefix.process.locks import exclusive
from coldprefix.files import text_of, write_json
from coldprefix.study.plan import Job
from coldprefix.measure.prompts import draw_trial


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", required=True, help="a job of the backend (coldprefix.job.Job) as JSON, or a file that holds it")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--owner", type=int, help="as of measure.py")
    arguments = parser.parse_args()
    job = Job.model_validate_json(text_of(arguments.job))
    with naming(f"{job.phase} preflight", arguments.log):
        look(job, arguments)


def look(job: Job, arguments: argparse.Namespace) -> None:
    """Start the engine, ask it, and write the record."""
    inherited = dict(os.environ)
    environments.say(f"{job.phase}: starting {job.engine} ({job.interface}) to read its settings")
    with exclusive(f"{job.phase} preflight"), open_session(job, arguments.model, arguments.gguf, arguments.log, arguments.owner) as session:
        in_force = session.in_force()
        lengths = (job.lengths.A, job.lengths.B, job.lengths.Q)
        prompts = draw_trial(lengths, "hit", job.model.vocabulary, job.protocol.seed, 0, 0, "fresh")
        cold = session.complete(prompts.warm, 1, stream=False).cached_tokens
        warm = session.complete(prompts.query, 1, stream=False).cached_tokens
        start_s = session.start_s
    os.environ.update(inherited)
    if cold is None or warm is None:
        raise ColdprefixError("the engine does not report how many tokens it reuses, so no trial can be verified")
    record: dict[str, object] = {
        "phase": job.phase,
        "engine": job.engine,
        "interface": job.interface,
        "model": job.model.name,
        "in_force": in_force,
    }
    record |= {"reused_cold_tokens": cold, "reused_warm_tokens": warm, "start_s": round(start_s, 2)}
    write_json(arguments.out, record)
    environments.say(f"{job.phase}: ready after {start_s:.1f} s; reuses {warm} of {len(prompts.query)} tokens after [A, B]")


if __name__ == "__main__":
    run_main(main)
