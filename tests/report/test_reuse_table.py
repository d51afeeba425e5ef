"""The tables of models, edits and backends: from raw files, with what the rule says beside what was seen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from null_engine import NullSession

from coldprefix.data.raw import as_frame, write_cell
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job
from coldprefix.measure import protocol
from coldprefix.report import reuse_table

MakeJob = Callable[..., Job]
IN_FORCE = {"prompt_cache": True, "window_tokens": 0, "recurrent": False, "cache_reuse": 0, "slots": 1, "host_cache_mib": 0, "version": "7"}
CHANGES = {"settle_ms": 0, "processes": 1, "trials": 2, "burn_in": 0, "experiments": ["edits"], "accelerator": "cpu"}


def measured(raw: Path, job: Job, session: NullSession) -> None:
    rows = protocol.run_process(session, job, 0, 0, lambda _: None)
    write_cell(raw / job.cell, as_frame(rows), {"job": job.model_dump(mode="json"), "in_force": IN_FORCE})


@pytest.fixture
def job(make_job: MakeJob) -> Job:
    return make_job("phase3a", "hit", CHANGES, "A640_B320", "edits/plain")


def test_counts_stand_beside_what_the_rule_says(job: Job, tmp_path: Path) -> None:
    measured(tmp_path, job, NullSession("slot"))
    found = list(reuse_table.counts(reuse_table.read(tmp_path, ["edits"])))
    assert len(found) == 3 * 7 and not any(count.wrong for count in found)
    own = {(count.state, count.step): str(count) for count in found}
    assert own["delete-16@50%", "query"] == "480" and own["hit", "rewarm"] == "959" and own["prepend-16", "stream"] == "0"
    assert "| gpt2-standin | delete-16@50% | first | 480 |" in reuse_table.counts_table(found)


def test_a_wrong_count_is_shown_with_both_numbers(job: Job, tmp_path: Path) -> None:
    measured(tmp_path, job, NullSession("pool", 128))
    found = {(count.state, count.step): count for count in reuse_table.counts(reuse_table.read(tmp_path, ["edits"]))}
    assert found["delete-16@50%", "query"].wrong and str(found["delete-16@50%", "query"]) == "384 (**not 480**)"


def test_two_variants_of_a_sweep_on_one_model_are_told_apart(make_job: MakeJob, tmp_path: Path) -> None:
    for variant in ("plain", "moved"):
        measured(tmp_path, make_job("phase3a", "hit", CHANGES, "A640_B320", f"edits/{variant}"), NullSession("slot"))
    table = reuse_table.counts_table(list(reuse_table.counts(reuse_table.read(tmp_path, ["edits"]))))
    assert all(f"| gpt2-standin, edits/{variant} | hit | first | 960 |" in table for variant in ("plain", "moved"))


def test_the_page_says_what_runs_and_what_is_refused_and_why(job: Job, tmp_path: Path) -> None:
    measured(tmp_path / "raw", job, NullSession("slot"))
    command = [sys.executable, str(ROOT / "workflow/scripts/write_reuse_tables.py"), "--raw", str(tmp_path / "raw")]
    done = subprocess.run([*command, "--experiments", "edits", "--out", str(tmp_path / "page.md")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.md").read_text()
    assert (
        "| gpt2-standin | GPT2LMHeadModel | not measured | not measured | 14 trials |" in page
        and "21 of 21 are as the rule says" in page
        and "llama.cpp 7; cpu." in page
    )
    cells = reuse_table.read(tmp_path / "raw", ["edits"])
    table = reuse_table.runs_table(
        cells, {"gpt2-standin": "GPT2LMHeadModel", "mamba2-tiny": "Mamba2ForCausalLM"}, ["phase2", "phase3a"], "cpu"
    )
    assert '| mamba2-tiny | Mamba2ForCausalLM | refused: its CPU build, at the first request: "IndexError' in table
    assert "| gpt2-standin | GPT2LMHeadModel | not measured | 14 trials |" in table


def test_without_a_cell_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ColdprefixError, match="experiments=edits"):
        reuse_table.read(tmp_path, ["edits"])
