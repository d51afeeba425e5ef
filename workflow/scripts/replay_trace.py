"""Replay a trace on a backend: its requests in order, in several engine processes, each of which begins with an empty cache.

    python replay_trace.py TRACE --plan PLAN --phase phase3a --processes 3 --most 200 --out results/trace/phase3a.parquet --log FILE

The token ids go to the engine's program through a private folder that is removed afterwards; what is written holds counts and times only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from coldprefix.data.parquet import write_table
from coldprefix.engines.contract import load
from coldprefix.errors import ColdprefixError
from coldprefix.files import write_json
from coldprefix.job import Job, read_job
from coldprefix.measure.child import measured_by_child
from coldprefix.process.program import run_main
from coldprefix.traces.analyse import Options
from coldprefix.traces.prompts import prompts_of
from coldprefix.traces.replay import SENT
from coldprefix.traces.tokens import Tokenizer, tokenizer_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--plan", type=Path, required=True, help="results/plan.json, which snakemake writes")
    parser.add_argument("--phase", required=True)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--bad", choices=["refuse", "skip"], default="refuse", help="what to do with lines that cannot be used")
    parser.add_argument("--block", type=int, help="tokens of a block of the trace's hashes; as a rule the trace says")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--most", type=int, default=200, help="send the first so many requests")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True, help="the engine's own output")
    arguments = parser.parse_args()
    job = read_job(arguments.plan, "preflight", arguments.phase)
    options = Options(arguments.bad, context_of(job), job.model.vocabulary, arguments.block)
    found = prompts_of(
        arguments.trace,
        options,
        arguments.most,
        job.model.vocabulary,
        lambda: Tokenizer(tokenizer_folder(arguments.models, job.model.name)),
    )
    rows, known = [], []
    with tempfile.TemporaryDirectory(prefix="coldprefix-trace-") as temporary:
        folder = Path(temporary)
        np.save(folder / "ids.npy", np.concatenate(found[0]))
        np.save(folder / "lengths.npy", np.array([len(ids) for ids in found[0]]))
        np.save(folder / "lines.npy", np.array(found[1]))
        for process in range(arguments.processes):
            log = arguments.log.with_suffix(f".{process}{arguments.log.suffix}") if process else arguments.log
            program = [
                str(Path(__file__).with_name("in_environment.py")),
                "send_trace",
                "--plan",
                str(arguments.plan),
                "--phase",
                job.phase,
            ]
            program += ["--models", str(arguments.models), "--prompts", temporary, "--process", str(process), "--log", str(log)]
            own, told = measured_by_child(program, log)
            rows += own
            known.append(told)
    if any(told["in_force"] != known[0]["in_force"] for told in known):
        raise ColdprefixError(f"{job.phase}: a fresh engine came up with other settings; see {arguments.log}")
    write_table(pl.DataFrame(rows, {name: dtype for name, (dtype, _) in SENT.items()}), arguments.out)
    write_json(arguments.out.with_suffix(".json"), {"job": job.model_dump(mode="json"), **known[0]})


def context_of(job: Job) -> int:
    """The context of one request, in tokens."""
    return load(job.engine).settings.model_validate(job.settings).context_of(job.model.positions)


if __name__ == "__main__":
    run_main(main)
