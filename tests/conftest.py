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
from coldprefix.study.checks import load, parse
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


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/ with gpt2-tiny and its GGUF, made once for all tests of a worker: read it, or copy it to change it."""
    from coldprefix.models import prepare

    folder = tmp_path_factory.mktemp("tiny")
    prepare.ensure_gguf("gpt2-tiny", load(ROOT / "config.yaml").models["gpt2-tiny"], folder)
    return folder


@cache
def group(file: str) -> tuple[int, str]:
    """Tests that one worker of pytest-xdist does, with their rank: a run of the pipeline with all that look at it, the faults, which share what they
    are done to, or else those of one file. What takes longest comes first, so that no worker is left alone with it.
    """
    path = Path(file)
    engines = "mark.engine" in (ROOT / path).read_text()
    if engines and path.parent.name in ("workflow", "faults"):
        return ["workflow", "faults"].index(path.parent.name), path.parent.name
    return (2 if engines else 3), file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: group(str(item.path))[0])


class Groups(LoadScopeScheduling):  # type: ignore[misc]
    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])[1]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    return Groups(config, log)


def pytest_sessionfinish() -> None:
    fault_table.write()
