"""What one client's miss costs its neighbours: steady clients at the same time, while another one sends a hit, a miss, or nothing. Over HTTP only.

    python in_environment.py measure_load --plan PLAN --phase phase3a [--batch-tokens 128] --out results/load/phase3a.parquet --log FILE

Runs in the engine's environment. --batch-tokens below the prompt's length makes the engine compute it in pieces (chunked prefill); what is in force is
read back from the engine, and must be what was asked for.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.data.parquet import write_table
from coldprefix.engines.clock import long_lived
from coldprefix.engines.contract import load, weights_of
from coldprefix.errors import ColdprefixError, naming
from coldprefix.files import write_json
from coldprefix.job import Job, read_job
from coldprefix.load import clients
from coldprefix.measure import provenance
from coldprefix.measure.cell import open_session
from coldprefix.process.locks import exclusive
from coldprefix.process.program import run_main, workflow_pid
from coldprefix.setup.building import say


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="results/plan.json, which snakemake writes")
    parser.add_argument("--phase", required=True, help="an interface over HTTP")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=4, help="of each number of clients and each state, in a process")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, help="most tokens computed in one step; as a rule the configuration's")
    parser.add_argument("--max-rejected", type=float, default=0.2)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True, help="the engine's own output")
    arguments = parser.parse_args()
    asked = read_job(arguments.plan, "preflight", arguments.phase)
    job = job_for(asked, max(arguments.clients) + 1, arguments.batch_tokens)
    variant = f"batch {arguments.batch_tokens}" if arguments.batch_tokens else "default"
    weights = weights_of(arguments.models, job.model.name, load(job.engine).weights)
    shape, what = clients.Shape(), f"{job.phase} load"
    rows: list[clients.Row] = []
    record: dict[str, Any] = {"job": job.model_dump(mode="json"), "host": provenance.host(), "software": provenance.software()}
    with naming(what, arguments.log), exclusive(what, workflow_pid()):
        for process in range(arguments.processes):
            log = arguments.log.with_suffix(f".{process}{arguments.log.suffix}") if process else arguments.log
            with open_session(job, weights, log, None, process) as session, long_lived():
                record["in_force"] = session.in_force()
                check_in_force(record["in_force"], job, max(arguments.clients) + 1, arguments.batch_tokens, shape)
                keys = {"phase": job.phase, "variant": variant, "process": process}
                seed = [job.protocol.seed, process]
                rows += clients.run(session, job.model.vocabulary, arguments.clients, arguments.rounds, shape, seed, keys)
            say(
                f"{what}: engine process {process + 1} of {arguments.processes} done, {sum(bool(r['rejection']) for r in rows)} of {len(rows)} rejected"
            )
        if clients.check(rows, arguments.max_rejected, say) > arguments.max_rejected:
            raise ColdprefixError(f"more than {arguments.max_rejected:.0%} of the requests are rejected, so nothing is written")
    write_json(arguments.out.with_suffix(".json"), record)
    write_table(pl.DataFrame(rows, clients.SCHEMA), arguments.out)


def job_for(job: Job, most: int, batch: int | None) -> Job:
    """The job with room for the clients and one more at once.

    Raises:
        ColdprefixError: not over HTTP, or an engine that has no setting for that.
    """
    if job.interface != "http":
        raise ColdprefixError(f"{job.phase}: clients at the same time need an interface over HTTP; name phase1 or phase3a")
    engine = load(job.engine)
    settings = job.settings | engine.for_clients(job.settings, most + 1) | (engine.in_pieces(job.settings, batch) if batch else {})
    return job.model_copy(update={"settings": engine.settings.model_validate(settings).model_dump(mode="json")})


def check_in_force(in_force: dict[str, Any], job: Job, most: int, batch: int | None, shape: clients.Shape) -> None:
    """Raises ColdprefixError: the engine runs with something else than was asked for, or the prompts do not fit."""
    if in_force["slots"] != most + 1:
        raise ColdprefixError(f"{job.phase}: asked for {most + 1} requests at a time, {in_force['slots']} are in force")
    if batch and in_force["batch_tokens"] != batch:
        raise ColdprefixError(f"{job.phase}: asked for batch_tokens {batch}, {in_force['batch_tokens']} are in force")
    if in_force["context_tokens"] < shape.longest:
        raise ColdprefixError(f"{job.phase}: prompts of {shape.longest} tokens do not fit the context of {in_force['context_tokens']}")


if __name__ == "__main__":
    run_main(main)
