"""The workflow as a user types it, without measuring: the graph, the messages, and what is stale after which change."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    ("figure", "measured"),
    [
        ("fig2_scaling", {"phase1": 9, "phase2": 9, "phase3a": 9, "phase3b": 9}),
        ("fig3_architectures", {"phase1": 8, "phase2": 8, "phase3a": 8, "phase3b": 8}),
        ("fig4_cascade", {"phase1": 6, "phase2": 6, "phase3a": 10, "phase3b": 6}),
        ("fig5_batch_size", {"phase1": 0, "phase2": 0, "phase3a": 5, "phase3b": 5}),
        ("fig6_confound", {"phase1": 2, "phase2": 2, "phase3a": 2, "phase3b": 2}),
    ],
)
def test_each_figure_needs_its_own_measurements_only(snakemake: Run, tmp_path: Path, figure: str, measured: dict[str, int]) -> None:
    found = jobs(snakemake(tmp_path, "-n", f"figures/{figure}.pdf"))
    assert {phase: found[phase] for phase in measured} == measured and found[figure] == 1


def test_values_from_the_command_line(snakemake: Run, tmp_path: Path) -> None:
    found = jobs(
        snakemake(tmp_path, "-n", "--config", "phases=phase3b", "model=gpt2-tiny", "trials=3", "accelerator=cpu", "experiments=main")
    )
    assert found["phase3b"] == 6 and found["phase1"] == 0 and found["environment"] == 1


def test_a_second_file_holds_only_what_differs(snakemake: Run, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("phases: [phase3a]\nexperiments: [main]\nllamacpp: {host_cache_mib: 64}\n")
    done = snakemake(tmp_path, "-n", "--printshellcmds", "--configfile", str(tmp_path / "my.yaml"))
    assert jobs(done)["phase3a"] == 6
    (named, *_) = re.findall(r"measure.py --job (\S+)", done.stdout)
    assert '"host_cache_mib":64' in (tmp_path / named).read_text() and '"batch_tokens":2048' in (tmp_path / named).read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trialz=3"], "trialz: there is no such key (did you mean 'trials'?)"),
        (["trials=many"], "trials: 'many'"),
        (["model=opt-125m"], "which cannot run opt-125m"),
        (["model=gpt2x"], "there is no model 'gpt2x' (did you mean 'gpt2'?)"),
        (["phases=phase4"], "phases"),
        (["vllm={block_tokenz: 16}"], "block_tokenz"),
        (["stream_tokens=500", "configurations=A512_B256"], "do not fit the 1024 tokens"),
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
    assert jobs(snakemake(folder, "-n"))["phase3b"] == 22


@settings(max_examples=8, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    phases=st.lists(st.sampled_from(["phase1", "phase2", "phase3a", "phase3b"]), min_size=1, unique=True),
    states=st.lists(st.sampled_from(["hit", "miss"]), min_size=1, unique=True),
    lengths=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400)), min_size=1, max_size=4, unique=True),
    variants=st.lists(st.from_regex(r"[a-z][a-z0-9._-]{0,6}", fullmatch=True), max_size=2, unique=True),
)
def test_any_valid_configuration_gives_a_graph_of_exactly_the_cells_asked_for(
    snakemake: Run,
    tmp_path_factory: pytest.TempPathFactory,
    phases: list[str],
    states: list[str],
    lengths: list[tuple[int, int]],
    variants: list[str],
) -> None:
    folder = tmp_path_factory.mktemp("product")
    configurations = [f"A{a}_B{b}" for a, b in lengths]
    sweep = {"phases": phases, "states": states, "configurations": configurations[:1], "variants": {name: {} for name in variants}}
    asked = {"phases": phases, "states": states, "configurations": configurations, "experiments": ["main", *(["own"] if variants else [])]}
    (folder / "my.yaml").write_text(yaml.safe_dump(asked | ({"sweeps": {"own": sweep}} if variants else {})))
    done = snakemake(folder, "-n", "results/summary.txt", "--configfile", str(folder / "my.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    planned = re.findall(r"^ +output: results/raw/(\S+)/requests\.parquet", done.stdout + done.stderr, re.M)
    wanted = {f"{phase}/{c}/{state}" for phase in phases for c in configurations for state in states}
    wanted |= {f"{phase}/own/{v}/{configurations[0]}/{state}" for phase in phases for v in variants for state in states}
    assert sorted(planned) == sorted(wanted)


def test_lint(snakemake: Run, tmp_path: Path) -> None:
    import sys

    checked = subprocess.run(
        [str(Path(sys.executable).parent / "snakefmt"), "--check", str(ROOT / "Snakefile"), str(ROOT / "workflow" / "rules")],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("tool", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]])
def test_checked(tool: list[str]) -> None:
    import sys

    command = [str(Path(sys.executable).parent / tool[0]), *tool[1:]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
