"""A trace through Snakemake: without an engine, and replayed on real ones."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT
from small import hashes, written

Run = Callable[..., subprocess.CompletedProcess[str]]
HASHES = [hashes([1, 2, 3], 40, 5), hashes([1, 2, 4], 48, 6), hashes([1, 2, 4, 5], 50, 7), hashes([9], 16, 8)]


def asked(file: Path, **more: object) -> list[str]:
    return [
        "--config",
        f"trace={file}",
        "model=gpt2-tiny",
        *[f"{key}={value}" for key, value in more.items()],
        "--",
        "results/trace/trace.md",
    ]


def test_a_trace_of_hashes_is_analysed_without_an_engine_and_refused_with_its_line(tmp_path: Path, snakemake: Run) -> None:
    file = written(tmp_path / "trace.jsonl", HASHES)
    done = snakemake(tmp_path, "--cores", "1", *asked(file, trace_replay=0, trace_cache_tokens=64), timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| an unlimited cache reuses | 80 | 51.9 % |" in (tmp_path / "results" / "trace" / "trace.md").read_text()
    assert (tmp_path / "figures" / "fig12_trace.pdf").exists() and not (tmp_path / "models").exists()
    rows = pl.read_parquet(tmp_path / "results" / "trace" / "requests.parquet")
    assert rows["ideal_tokens"].to_list() == [0, 32, 48, 0]
    written(file, [*HASHES, hashes([1], 16, 3)])
    again = snakemake(tmp_path, "--cores", "1", *asked(file, trace_replay=0), timeout=200)
    assert again.returncode and "line 5: its clock runs backwards: 3 after 8" in again.stdout + again.stderr


def test_a_trace_that_is_none_stops_before_anything_runs(tmp_path: Path, snakemake: Run) -> None:
    done = snakemake(tmp_path, "-n", *asked(tmp_path / "none.jsonl"), timeout=200)
    said = done.stdout + done.stderr
    assert (
        done.returncode and f"trace: cannot read {tmp_path / 'none.jsonl'}: No such file or directory" in said and "Traceback" not in said
    )


@pytest.mark.engine
@pytest.mark.slow
def test_the_agent_s_session_is_replayed_and_every_answer_verified(tmp_path: Path, snakemake: Run) -> None:
    file = ROOT / "docs" / "agent_trace.jsonl"
    done = snakemake(tmp_path, "--cores", "1", *asked(file, trace_processes=1, trace_text="false", phases="phase1,phase2,phase3a,phase3b"))
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    rows = pl.read_parquet(tmp_path / "results" / "trace" / "requests.parquet")
    for phase in ("phase1", "phase2", "phase3a", "phase3b"):
        sent = pl.read_parquet(tmp_path / "results" / "trace" / "replay" / f"{phase}.parquet")
        assert sent["line"].to_list() == rows["line"].to_list() and not sent["rejection"].drop_nulls().len()
        assert (sent["prompt_tokens"] == rows["prompt_tokens"]).all() and (sent["cached_tokens"] == sent["rule_tokens"]).all()
        whole = 128 if phase in ("phase1", "phase2") else 1
        assert (sent["cached_tokens"] == rows["ideal_tokens"] // whole * whole).all(), "nothing is evicted of so short a session"
    outputs = [path for folder in ("results", "figures") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert len(outputs) > 10
    for path in outputs:
        assert b"beekeeping" not in path.read_bytes(), f"text of the trace is in {path}"
