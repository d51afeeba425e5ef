"""What several test files use."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

# Two workers of pytest-xdist measure at the same time, which no run does: nobody reads the times of a test. Before anything of ours is imported.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ.setdefault("COLDPREFIX_MACHINE_LOCK", f"/tmp/coldprefix-measuring-{worker}.lock")

import fault_table
import pytest
import yaml
from xdist.scheduler import LoadScopeScheduling

from coldprefix.job import Cell, Job
from coldprefix.study.checks import parse
from coldprefix.study.config import Config
from coldprefix.study.plan import job_of

ROOT = Path(__file__).resolve().parents[1]
SAME_PATH = f"import sys; sys.path[:] = {sys.path!r}\n"  # begins programs that import what tests do
Values = dict[str, Any]
pytest_plugins = ["finished_run", "fault_run"]


@pytest.fixture
def values() -> Values:
    """config.yaml of the repository, to change."""
    loaded: Values = yaml.safe_load((ROOT / "config.yaml").read_text())
    return loaded


@pytest.fixture
def config(values: Values) -> Config:
    return parse(values)


def with_values(values: Values, changes: Values) -> Values:
    """A copy with values replaced by dotted path."""
    result = copy.deepcopy(values)
    for path, value in changes.items():
        *sections, key = path.split(".")
        target = result
        for section in sections:
            target = target[section]
        target[key] = value
    return result


@pytest.fixture
def make_job(values: Values) -> Callable[..., Job]:
    """A job of config.yaml with some values replaced: make_job("phase3a", "hit", {"trials": 3})."""

    def make(phase: str, state: str, changes: Values | None = None, configuration: str = "A512_B256", variant: str = "main") -> Job:
        return job_of(parse(with_values(values, changes or {})), Cell(phase, variant, configuration, state))

    return make


@pytest.fixture(scope="session")
def snakemake() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run snakemake as a user types it, in a folder of its own."""

    def run(folder: Path, *arguments: str, timeout: float = 900, **variables: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).parent / "snakemake"
        command = [str(program), "-s", str(ROOT / "Snakefile"), "--directory", str(folder), "--nocolor", *arguments]
        env = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", **variables}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout)

    assert shutil.which("make")
    return run


@cache
def group(file: str) -> str:
    """Tests that one worker of pytest-xdist does: a run of the pipeline with all that look at it, and the faults, which look at the whole machine
    for what is left; or else those of one file.
    """
    path = Path(file)
    starts_engines = path.parent.name in ("faults", "workflow") and "mark.engine" in (ROOT / path).read_text()
    return "engines" if starts_engines else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first."""
    items.sort(key=lambda item: group(str(item.path)) != "engines")


class Groups(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)


def pytest_sessionfinish() -> None:
    fault_table.write()
