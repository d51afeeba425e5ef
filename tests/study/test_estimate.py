"""What a study will take, from what an earlier run says it took, or from a guess that says that it is one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Values, with_values

from coldprefix.study import estimate
from coldprefix.study.checks import parse
from coldprefix.study.plan import Plan, plan_of

BASE: Values = {
    "experiments": ["main"],
    "phases": ["phase3a"],
    "configurations": ["A64_B64"],
    "states": ["hit", "miss"],
    "accelerator": "cpu",
    "processes": 3,
    "trials": 4,
    "burn_in": 1,
    "partners": ["hit", "miss"],
}
CELL = "phase3a/A64_B64/hit"


def plan(values: Values, **changes: Any) -> Plan:
    return plan_of(parse(with_values(values, BASE | changes)))


def record(made_of: Plan, cell: str = CELL) -> dict[str, Any]:
    """Three processes of 10 trials: 4 s beside the trials and 6 s in them each; and 2 s beside the processes."""
    job = made_of.jobs[cell].model_dump(mode="json")
    return {
        "job": job,
        "host": {"cpu": "a CPU"},
        "job_s": 32.0,
        "wall_s": 30.0,
        "engine_busy_s": 15.0,
        "settle_s": 3.0,
        "engine_start_s": [1.0, 1.0, 1.0],
    }


def test_a_measured_cell_takes_what_it_took(values: Values) -> None:
    own = plan(values)
    found = estimate.costs(own, [record(own)])
    assert found[CELL].fewest_s == found[CELL].most_s == pytest.approx(32.0) and found[CELL].source == "this cell"
    other = found["phase3a/A64_B64/miss"]
    assert other.most_s == pytest.approx(32.0) and other.source == "its backend"


def test_other_numbers_of_processes_and_trials_are_reckoned(values: Values) -> None:
    asked = plan(values, trials=9, processes={"min": 3, "max": 6, "precision": 0.05})
    found = estimate.costs(asked, [record(plan(values))])[CELL]
    assert found.fewest_s == pytest.approx(2 + 3 * (4 + 12)) and found.most_s == pytest.approx(2 + 6 * (4 + 12))


def test_without_an_earlier_run_it_says_that_it_guesses(values: Values) -> None:
    own = plan(values)
    assert {cost.source for cost in estimate.costs(own, []).values()} == {"default"}
    text = estimate.text(own, [])
    assert "nothing was measured here yet" in text and "a guess" in text and "default 2" in text
    assert "measured on a CPU" in estimate.text(own, [record(own)])


def test_it_says_and_runs_nothing(snakemake: Callable[..., subprocess.CompletedProcess[str]], values: Values, tmp_path: Path) -> None:
    raw = tmp_path / "results/raw" / CELL
    raw.mkdir(parents=True)
    (raw / "provenance.json").write_text(json.dumps(record(plan(values))))
    (raw.parent / "provenance.json").write_text("damaged")
    asked = [f"{key}={json.dumps(value)}" for key, value in BASE.items()]
    done = snakemake(tmp_path, "--config", "estimate=true", *asked)
    assert done.returncode == 0, done.stderr
    assert "this cell 1, its backend 1" in done.stdout and "node-hours: 0.02" in done.stdout
    assert not (tmp_path / "results/plan.json").exists() and not (tmp_path / "models").exists()
