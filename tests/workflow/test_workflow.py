"""The workflow as a user types it, without measuring: the graph, the messages, and what is stale after which change."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coldprefix.study import registry
from coldprefix.study.checks import parse
from coldprefix.study.config import Config
from coldprefix.study.plan import plan_of

Run = Callable[..., subprocess.CompletedProcess[str]]


def jobs(done: subprocess.CompletedProcess[str]) -> Counter[str]:
    """Rule: number of jobs, from the table of a dry run."""
    table = re.search(r"^job +count\n-+ +-+\n(.*?)\n\n", done.stdout + done.stderr, re.M | re.S)
    return Counter({m[1]: int(m[2]) for m in re.finditer(r"^(\w+) +(\d+)$", table[1], re.M)}) if table else Counter()


def test_a_fresh_folder_needs_everything_once(snakemake: Run, tmp_path: Path) -> None:
    found = jobs(snakemake(tmp_path, "-n", "--config", "experiments=main"))
    assert {rule: found[rule] for rule in ("phase1", "phase2", "phase3a", "phase3b")} == dict.fromkeys(
        ("phase1", "phase2", "phase3a", "phase3b"), 6
    )
    once = {
        "model": 1,
        "gguf": 1,
        "environment": 2,
        "preflight": 4,
        "settings": 1,
        "aggregate": 1,
        "fig1_invalidation": 1,
        "phase1_panels": 1,
    }
    once |= {"experiment": 1, "claims": 1, "converter": 1, "report": 1}
    assert {rule: found[rule] for rule in once} == once


def test_one_figure_can_be_asked_for(snakemake: Run, tmp_path: Path) -> None:
    found = jobs(snakemake(tmp_path, "-n", "--cores", "1", "figures/fig1_invalidation.pdf"))
    assert found["fig1_invalidation"] == 1 and found["phase3b_panels"] == 0 and found["phase3b"] == 6 and found["phase1"] == 6


def test_each_figure_needs_its_own_measurements_only(snakemake: Run, tmp_path: Path, config: Config) -> None:
    """Asked of Snakemake for one, and of the plan, which the rules follow, for all."""
    counts = {
        "fig2_scaling": [1, 1, 1, 1],  # all lengths in one
        "fig3_backends": [8, 8, 8, 8],
        "fig4_cascade": [6, 6, 10, 6],
        "fig5_batch_size": [0, 0, 5, 5],
        "fig6_confound": [2, 2, 2, 2],
        "phase3a_panels": [6, 6, 6, 6],
    }
    plan = plan_of(config)
    for name, wanted in counts.items():
        cells = plan.cells(*registry.figures()[name].experiments)
        assert [len([c for c in cells if c.startswith(f"{phase}/")]) for phase in plan.phases] == wanted, name
    found = jobs(snakemake(tmp_path, "-n", "figures/fig4_cascade.pdf"))
    assert [found[phase] for phase in plan.phases] == counts["fig4_cascade"] and found["fig4_cascade"] == 1


def test_values_from_the_command_line(snakemake: Run, tmp_path: Path) -> None:
    found = jobs(
        snakemake(tmp_path, "-n", "--config", "phases=phase3b", "model=gpt2-tiny", "trials=3", "accelerator=cpu", "experiments=main")
    )
    assert found["phase3b"] == 6 and found["phase1"] == 0 and found["environment"] == 1


def test_a_second_file_holds_only_what_differs(snakemake: Run, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("phases: [phase3a]\nexperiments: [main]\nllamacpp: {host_cache_mib: 64}\n")
    done = snakemake(tmp_path, "results/setup/models/gpt2-tiny.json", "--configfile", str(tmp_path / "my.yaml"))
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "results/plan.json").read_text())["cells"]
    assert len(cells) == 6 and all(cell.startswith("phase3a/") for cell in cells)
    for job in cells.values():
        assert job["settings"]["host_cache_mib"] == 64 and job["settings"]["batch_tokens"] == 2048


def test_a_dry_run_writes_nothing_of_ours(snakemake: Run, tmp_path: Path) -> None:
    assert snakemake(tmp_path, "-n").returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == [".snakemake"]
    assert not (tmp_path / ".snakemake" / "coldprefix").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trialz=3"], "trialz: there is no such key (did you mean 'trials'?)"),
        (["model=opt-125m"], "which cannot run opt-125m"),
        (["vllm={block_tokenz: 16}"], "block_tokenz"),
    ],
)
def test_a_bad_value_stops_before_anything_is_done(snakemake: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = snakemake(tmp_path, "--config", *arguments)
    output = done.stdout + done.stderr
    assert done.returncode != 0 and message in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists() and not (tmp_path / "models").exists()


def test_the_graph_does_not_depend_on_the_working_folder_s_name(snakemake: Run, tmp_path: Path) -> None:
    folder = tmp_path / "a folder; with 'quotes' & spaces"
    folder.mkdir()
    assert jobs(snakemake(folder, "-n"))["phase3b"] == 14


@settings(max_examples=100, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    phases=st.lists(st.sampled_from(["phase1", "phase2", "phase3a", "phase3b"]), min_size=1, unique=True),
    states=st.lists(st.sampled_from(["hit", "miss"]), min_size=1, unique=True),
    lengths=st.lists(st.tuples(st.integers(64, 400), st.integers(64, 400)), min_size=1, max_size=4, unique=True),
    variants=st.lists(st.from_regex(r"[a-z][a-z0-9._-]{0,6}", fullmatch=True), max_size=2, unique=True),
)
def test_any_valid_configuration_gives_a_plan_of_exactly_the_cells_asked_for(
    values: Values, phases: list[str], states: list[str], lengths: list[tuple[int, int]], variants: list[str]
) -> None:
    asked, wanted = _asked(phases, states, lengths, variants)
    plan = plan_of(parse(values | asked))
    assert sorted(plan.jobs) == sorted(wanted)
    assert sorted(plan.cells("main") + (plan.cells("own") if variants else [])) == sorted(wanted)


def test_the_graph_is_the_plan(snakemake: Run, tmp_path: Path) -> None:
    asked, wanted = _asked(["phase3b", "phase1"], ["miss"], [(1, 2), (300, 40)], ["a.b-c", "x"])
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(asked))
    done = snakemake(tmp_path, "-n", "-p", "results/summary.txt", "--configfile", str(tmp_path / "my.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(re.findall(r"measure --plan \S+ --cell (\S+) --digest [0-9a-f]{32} ", done.stdout + done.stderr)) == sorted(wanted)


def _asked(phases: list[str], states: list[str], lengths: list[tuple[int, int]], variants: list[str]) -> tuple[Values, set[str]]:
    """A configuration, and the cells that it asks for."""
    configurations = [f"A{a}_B{b}" for a, b in lengths]
    sweep = {"phases": phases, "states": states, "configurations": configurations[:1], "variants": {name: {} for name in variants}}
    asked = {"phases": phases, "states": states, "configurations": configurations, "experiments": ["main", *(["own"] if variants else [])]}
    wanted = {f"{phase}/{c}/{state}" for phase in phases for c in configurations for state in states}
    wanted |= {f"{phase}/own/{v}/{configurations[0]}/{state}" for phase in phases for v in variants for state in states}
    return asked | ({"sweeps": {"own": sweep}} if variants else {}), wanted


@pytest.mark.parametrize(
    "tool", [["snakefmt", "--check", "Snakefile", "workflow/rules"], ["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]]
)
def test_checked(tool: list[str]) -> None:
    command = [str(Path(sys.executable).parent / tool[0]), *tool[1:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
