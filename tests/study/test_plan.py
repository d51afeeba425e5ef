"""The plan: a job for each cell, with a digest that follows what decides its numbers and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Values, with_values
from snakemake.utils import update_config

from coldprefix.errors import ColdprefixError
from coldprefix.job import Job, read_job
from coldprefix.study.checks import parse
from coldprefix.study.plan import plan_of


def test_what_is_written_is_what_the_programs_read(values: Values, tmp_path: Path) -> None:
    plan = plan_of(parse(values))
    plan.write(tmp_path / "plan.json")
    for cell in ("phase1/A512_B256/hit", "phase3b/batch_size/n64/A256_B512/miss"):
        assert read_job(tmp_path / "plan.json", "cells", cell) == plan.job(cell)
    assert read_job(tmp_path / "plan.json", "preflight", "phase2") == plan.preflights["phase2"]
    written = json.loads((tmp_path / "plan.json").read_text())
    assert list(written["experiments"]["main"]) == plan.cells("main") and set(written["cells"]) == set(plan.jobs)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": {}}', '{"cells": {"phase1/A512_B256/hit": {"phase": "phase1"}}}'])
def test_a_plan_that_does_not_hold_the_job_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ColdprefixError, match=r"plan\.json.*Run snakemake, which writes it"):
        read_job(tmp_path / "plan.json", "cells", "phase1/A512_B256/hit")


@pytest.mark.parametrize("model", ["gpt2", "gpt2-standin"])
def test_models_of_all_sources_can_be_planned(values: Values, model: str) -> None:
    plan = plan_of(parse(with_values(values, {"model": model})))
    job = plan.job("phase3a/A512_B256/hit")
    assert job.model.name == model and job.model.random_weights == (model == "gpt2-standin")
    assert "results/setup/gguf/" + model + ".json" in plan.setup_records()


def test_the_preflights_do_not_follow_the_protocol_of_the_cells(values: Values) -> None:
    one = plan_of(parse(values)).preflights
    other = plan_of(parse(with_values(values, {"trials": 77, "seed": 3, "settle_ms": 9, "configurations": ["A64_B64"]}))).preflights
    assert {phase: job.digest for phase, job in one.items()} == {phase: job.digest for phase, job in other.items()}
    changed = plan_of(parse(with_values(values, {"llamacpp.slots": 2}))).preflights
    assert {phase for phase in one if one[phase].digest != changed[phase].digest} == {"phase3a", "phase3b"}


def test_patience_is_no_part_of_a_digest_and_all_else_is(make_job: Callable[..., Job]) -> None:
    base = make_job("phase1", "hit").digest
    assert make_job("phase1", "hit", {"timeout_s": 999, "start_timeout_s": 999}).digest == base
    for changes in ({"trials": 77}, {"seed": 3}, {"vllm.kv_cache_gib": 3}, {"threads": 7}, {"model": "gpt2-tiny"}, {"question_tokens": 9}):
        assert make_job("phase1", "hit", changes).digest != base, changes
    assert make_job("phase1", "hit", {"llamacpp.slots": 2}).digest == base, "another engine's settings"


def test_the_main_experiment_can_have_all_its_lengths_in_one_cell(values: Values) -> None:
    plan = plan_of(parse(with_values(values, {"mixed": True, "experiments": ["main"], "states": ["miss"]})))
    assert list(plan.jobs) == [f"{phase}/mixed/miss" for phase in values["phases"]]
    kinds = plan.job("phase2/mixed/miss").kinds
    assert {(kind.configuration, kind.state) for kind in kinds} == {(c, s) for c in values["configurations"] for s in values["partners"]}
    assert "fig1_invalidation" in plan.figures()


@pytest.mark.parametrize("study", ["gpu-8b", "gpu-124m"])
def test_the_studies_of_the_gpu_can_be_planned(values: Values, study: str) -> None:
    own = yaml.safe_load((ROOT / "study" / f"{study}.yaml").read_text())
    update_config(values, own)
    plan = plan_of(parse(values))
    assert set(own["experiments"]) == {job.sweep for job in plan.jobs.values()}
    assert all(job.accelerator == "cuda" and job.protocol.processes == 3 for job in plan.jobs.values())
    assert plan.job("phase1/eager/mixed/miss").settings["enforce_eager"] is True
    assert all(plan.job(f"phase1/sync/{mode}/mixed/miss").settings["async_scheduling"] is False for mode in ("graphs", "eager"))
