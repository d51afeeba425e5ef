"""Raw rows and cells that were never measured, for tests."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conftest import ROOT
from null_engine import NullSession

from coldprefix.data import tables
from coldprefix.data.raw import as_frame
from coldprefix.data.raw import write_cell as write_raw
from coldprefix.job import Job
from coldprefix.measure import protocol


def row(step: str, **values: Any) -> dict[str, Any]:
    base: dict[str, Any] = dict.fromkeys(tables.REQUESTS)
    base |= {"phase": "phase3a", "engine": "llamacpp", "interface": "http", "configuration": "A512_B256", "state": "hit", "model": "m"}
    base |= {"sweep": "main", "variant": "main", "request_form": "tokens", "content": "fresh"}
    base |= {
        "job": "phase3a/A512_B256/hit",
        "own": True,
        "process": 0,
        "engine_process": "0",
        "trial": 0,
        "burn_in": False,
        "order": 0,
        "step": step,
        "prompt_tokens": 10,
        "prompt_hash": "x",
    }
    base |= {"total_ms": 1.0, "token_times_ms": [], "started_at": datetime(2026, 1, 1, tzinfo=UTC)}
    return base | values


def one_trial(**of_stream: Any) -> list[dict[str, Any]]:
    stream = {"ttft_ms": 23.6, "total_ms": 500.0, "token_times_ms": [23.6, 27.6, 31.6, 43.6], "cached_tokens": 8, "evaluated_tokens": 2}
    stream |= {"engine_prompt_ms": 22.1} | of_stream
    return [
        row("warmup", total_ms=300.0, cached_tokens=0),
        row("query", total_ms=24.2, cached_tokens=8, evaluated_tokens=2, engine_prompt_ms=22.0),
        row("rewarm", total_ms=7.0, cached_tokens=7),
        row("stream", **stream),
    ]


def write_cell(folder: Path, job: Job, session: NullSession, **host: Any) -> None:
    rows = protocol.run_process(session, job, 0, 0, lambda _: None)
    cell = folder / job.cell
    machine = {"cpu": "a CPU", "usable_cpus": 2, "gpus": []} | host
    record: dict[str, Any] = {
        "host": machine,
        "job": job.model_dump(mode="json"),
        "in_force": session.in_force() | {"command": [job.state]},
    }
    record |= {"job_s": 2.0, "wall_s": 1.5, "engine_busy_s": 1.0, "engine_start_s": [0.2], "settle_s": 0.0}
    record |= {"finished_at": "2026-01-01T00:00:00+00:00"}
    write_raw(cell, as_frame(rows), record)
    # As of the plan: what the configuration asks for is what was measured, unless a test says otherwise.
    plan = folder.parent / "plan.json"
    planned = json.loads(plan.read_text()) if plan.exists() else {"cells": {}}
    planned["cells"][job.cell] = record["job"]
    plan.write_text(json.dumps(planned))


FAST = {"settle_ms": 0, "trials": 3, "burn_in": 1, "processes": 1, "partners": []}


def run_aggregate(raw: Path, out: Path, *cells: str) -> subprocess.CompletedProcess[str]:
    """Put the planned cells together, or these only."""
    out.mkdir(exist_ok=True)
    plan = json.loads((raw.parent / "plan.json").read_text())
    plan["experiments"] = {"some": list(cells or plan["cells"])}
    (raw.parent / "asked.json").write_text(json.dumps(plan))
    command = [sys.executable, str(ROOT / "workflow/scripts/aggregate.py"), "--plan", str(raw.parent / "asked.json"), "--raw", str(raw)]
    return subprocess.run([*command, "--experiment", "some", "--out", str(out), "--requests"], capture_output=True, text=True)
