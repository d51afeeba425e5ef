"""Replay a trace on a backend: its requests in order, in several engine processes, each of which begins with an empty cache.

    python replay_trace.py TRACE --plan PLAN --phase phase3a --processes 3 --most 200 --out results/trace/replay/phase3a.parquet --log FILE

Each engine process is this program once more, in the engine's environment (in_environment.py), with --prompts. The token ids go there through a private
folder that is removed afterwards; what is written holds counts and times only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.data.parquet import write_table
from coldprefix.engines.clock import long_lived
from coldprefix.engines.contract import load, weights_of
from coldprefix.errors import ColdprefixError, naming
from coldprefix.files import write_json
from coldprefix.job import Job, read_job
from coldprefix.measure import child, provenance
from coldprefix.measure.cell import open_session
from coldprefix.process.locks import exclusive
from coldprefix.process.program import run_main, workflow_pid
from coldprefix.traces.analyse import Options
from coldprefix.traces.prompts import prompts_of
from coldprefix.traces.replay import SENT, send
from coldprefix.traces.tokens import Tokenizer, tokenizer_folder

SCHEMA = {name: dtype for name, (dtype, _) in SENT.items()}
ARRAYS = ("ids", "lengths", "lines")  # of all prompts: token ids one after the other, number of them, line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path, nargs="?")
    parser.add_argument("--plan", type=Path, required=True, help="results/plan.json, which snakemake writes")
    parser.add_argument("--phase", required=True)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--bad", choices=["refuse", "skip"], default="refuse", help="what to do with lines that cannot be used")
    parser.add_argument("--block", type=int, help="tokens of a block of the trace's hashes; as a rule the trace says")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--most", type=int, default=200, help="send the first so many requests")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--log", type=Path, required=True, help="the engine's own output")
    parser.add_argument("--prompts", type=Path, help="send those of this folder to one engine process,")
    parser.add_argument("--process", type=int, help="which has this number,")
    parser.add_argument("--hand-over", type=Path, help="and write what was measured into this folder")
    arguments = parser.parse_args()
    job = read_job(arguments.plan, "preflight", arguments.phase)
    if arguments.prompts:
        with naming(f"{job.phase} trace", arguments.log), child.quiet():
            replay_here(job, arguments.models, arguments.prompts, arguments.process, arguments.log, arguments.hand_over)
        return
    if not arguments.trace or not arguments.out:
        parser.error("a trace and --out are needed")
    vocabulary = job.model.vocabulary
    context = load(job.engine).settings.model_validate(job.settings).context_of(job.model.positions)
    options = Options(arguments.bad, context, vocabulary, arguments.block)

    def tokenizer() -> Tokenizer:
        return Tokenizer(tokenizer_folder(arguments.models, job.model.name))

    prompts, lines = prompts_of(arguments.trace, options, arguments.most, vocabulary, tokenizer)
    rows, known = [], []
    with tempfile.TemporaryDirectory(prefix="coldprefix-trace-") as folder:
        for name, values in zip(ARRAYS, (np.concatenate(prompts), [len(ids) for ids in prompts], lines), strict=True):
            np.save(Path(folder) / f"{name}.npy", np.asarray(values))
        for process in range(arguments.processes):
            log = arguments.log.with_suffix(f".{process}{arguments.log.suffix}") if process else arguments.log
            program = [str(Path(__file__).with_name("in_environment.py")), Path(__file__).stem, "--plan", str(arguments.plan)]
            program += ["--phase", job.phase, "--models", str(arguments.models), "--prompts", folder, "--process", str(process)]
            own, told = child.measured_by_child([*program, "--log", str(log)], log)
            rows += own
            known.append(told)
    if any(told["in_force"] != known[0]["in_force"] for told in known):
        raise ColdprefixError(f"{job.phase}: a fresh engine came up with other settings; see {arguments.log}")
    write_json(arguments.out.with_suffix(".json"), {"job": job.model_dump(mode="json"), **known[0]})
    write_table(pl.DataFrame(rows, SCHEMA), arguments.out)


def replay_here(job: Job, models: Path, folder: Path, process: int, log: Path, hand_over: Path) -> None:
    """Send all prompts to one engine process, which is started for them or lent."""
    ids, lengths, lines = (np.load(folder / f"{name}.npy") for name in ARRAYS)
    prompts = [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]
    weights = weights_of(models, job.model.name, load(job.engine).weights)
    owner, what = workflow_pid(), f"{job.phase} trace {process + 1}"
    terminal = os.fdopen(os.dup(2), "w")  # an engine inside this process has its output sent to its log
    bar = tqdm(total=len(prompts), desc=what, unit="request", dynamic_ncols=True, file=terminal)
    with bar, exclusive(what, owner), open_session(job, weights, log, owner, process) as session, long_lived():
        keys = {"phase": job.phase, "process": process}
        rows = send(session, prompts, lines.tolist(), job.model.vocabulary, keys, bar.update)
        known = {"in_force": session.in_force(), "host": provenance.host(), "software": provenance.software()}
    pl.DataFrame(rows, SCHEMA).write_parquet(hand_over / child.ROWS)
    write_json(hand_over / child.KNOWN, known)


if __name__ == "__main__":
    run_main(main)
