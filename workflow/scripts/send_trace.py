"""Send prompts to one engine process, one after the other. Runs in the engine's environment; `replay_trace.py` starts it.

python in_environment.py send_trace --plan PLAN --phase PHASE --prompts FOLDER --process 0 --log FILE --hand-over FOLDER
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.engines.clock import long_lived
from coldprefix.engines.contract import load, weights_of
from coldprefix.errors import naming
from coldprefix.files import write_json
from coldprefix.job import read_job
from coldprefix.measure import child, provenance
from coldprefix.measure.cell import open_session
from coldprefix.process.locks import exclusive
from coldprefix.process.program import run_main, workflow_pid
from coldprefix.traces.replay import SENT, send


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--phase", required=True)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--prompts", type=Path, required=True, help="a folder with ids.npy, lengths.npy and lines.npy")
    parser.add_argument("--process", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True, help="the engine's own output")
    parser.add_argument("--hand-over", type=Path, required=True, help="where the rows go")
    arguments = parser.parse_args()
    job = read_job(arguments.plan, "preflight", arguments.phase)
    what = f"{job.phase} trace {arguments.process + 1}"
    ids, lengths, lines = (np.load(arguments.prompts / f"{name}.npy") for name in ("ids", "lengths", "lines"))
    prompts = [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]
    weights = weights_of(arguments.models, job.model.name, load(job.engine).weights)
    owner = workflow_pid()
    terminal = os.fdopen(os.dup(2), "w")  # an engine inside this process has its output sent to its log
    with (
        naming(what, arguments.log),
        child.quiet(),
        exclusive(what, owner),
        open_session(job, weights, arguments.log, owner, arguments.process) as session,
        long_lived(),
        tqdm(total=len(prompts), desc=what, unit="request", dynamic_ncols=True, file=terminal) as bar,
    ):
        keys = {"phase": job.phase, "process": arguments.process}
        rows = send(session, prompts, lines.tolist(), job.model.vocabulary, keys, bar.update)
        known = {"in_force": session.in_force(), "host": provenance.host(), "software": provenance.software()}
    pl.DataFrame(rows, {name: dtype for name, (dtype, _) in SENT.items()}).write_parquet(arguments.hand_over / child.ROWS)
    write_json(arguments.hand_over / child.KNOWN, known)


if __name__ == "__main__":
    run_main(main)
