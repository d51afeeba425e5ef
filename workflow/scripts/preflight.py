"""Start a backend, read back what is really in force, stop it. Runs in the engine's environment (in_environment.py).

    python preflight.py --plan PLAN --phase PHASE --out OUT.json --log FILE

Also holds what the engine says that it reuses against the rule of its cache (measure/probe.py): without that, no trial could be verified.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.engines.contract import load, weights_of
from coldprefix.errors import Refused, naming
from coldprefix.files import write_json
from coldprefix.job import Job, read_job
from coldprefix.measure.cell import open_session
from coldprefix.measure.probe import probe
from coldprefix.measure.provenance import without_places
from coldprefix.measure.reference import check_reference
from coldprefix.process.locks import exclusive
from coldprefix.process.program import run_main, workflow_pid
from coldprefix.setup import refusals
from coldprefix.setup.building import say


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="results/plan.json, which snakemake writes")
    parser.add_argument("--phase", required=True)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    arguments = parser.parse_args()
    job = read_job(arguments.plan, "preflight", arguments.phase)
    with naming(f"{job.phase} preflight", arguments.log):
        try:
            look(job, arguments.models, arguments.log, arguments.out)
        except Refused as refusal:
            refusals.keep(job, refusal)
            raise


def look(job: Job, models: Path, log: Path, out: Path) -> None:
    """Start the engine, ask it, and write the record."""
    say(f"{job.phase}: starting {job.engine} ({job.interface}) to read its settings")
    owner = workflow_pid()
    engine = load(job.engine)
    weights = weights_of(models, job.model.name, engine.weights)
    with exclusive(f"{job.phase} preflight", owner), open_session(job, weights, log, owner) as session:
        in_force = session.in_force()
        if job.settings.get(engine.caching) and in_force.get(engine.caching) is False:
            raise Refused(
                f"{engine.title} has switched {engine.name}.{engine.caching} off by itself, so nothing can be reused; write "
                f"{engine.caching}: false with states: [miss], or leave {job.phase} out of phases. Why, may stand in its log: {log}"
            )
        reference = check_reference(session, models / job.model.name, job.model.gguf_type)
        # Of a server that somebody else runs no rule is known: its trials are held against what can be at most.
        probed = probe(session, job, in_force["context_tokens"], log) if engine.weights != "served" else []
        start_s = session.start_s
    record = {
        "phase": job.phase,
        "engine": job.engine,
        "interface": job.interface,
        "model": job.model.name,
        "settings": job.settings,
        "in_force": in_force,
    }
    write_json(out, without_places(record | {"reference": reference, "probe": probed, "start_s": round(start_s, 2)}))
    say(f"{job.phase}: ready after {start_s:.1f} s; reuses what its rule says in {len(probed)} of {len(probed)} requests")


if __name__ == "__main__":
    run_main(main)
