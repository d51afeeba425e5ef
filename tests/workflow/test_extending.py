"""docs/extending.md is true: its very code, in a copy of the repository, runs through Snakemake to the figures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT

from coldprefix.setup import building

pytestmark = pytest.mark.engine
PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^```(?:python|yaml)\n# (\S+?\.\w+)(?:: (\w+))?\n(.*?)^```$", re.M | re.S)
CONFIG = """
model: own
accelerator: cpu
experiments: [main]
phases: [phase4, phase3b]
states: [hit, miss, question_first]
configurations: [A64_B32]
question_tokens: 8
processes: 3
trials: 2
partners: [hit]
burn_in: 0
settle_ms: 0
stream_tokens: 4
models: {own: {source: copied, architecture: GPT2LMHeadModel, positions: 1024, vocabulary: 50257, folder: FOLDER}}
"""
TARGETS = ["results/claims.md", *(f"figures/{name}.png" for name in ("fig1_invalidation", "fig0_reuse", "phase4_panels"))]


@dataclass
class Extended:
    """A copy of the repository with the page's code in it, and a run of it."""

    checkout: Path
    folder: Path
    lines: dict[str, str]  # what was added to files that exist
    files: list[str]  # that were added


@pytest.fixture(scope="module")
def extended(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Extended:
    checkout, folder = tmp_path_factory.mktemp("extended") / "copy", tmp_path_factory.mktemp("run")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"], capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, checkout / name)
    done = Extended(checkout, folder, {}, [])
    for name, place, code in BLOCK.findall(PAGE.read_text()):
        path = checkout / name
        if not place:
            assert not path.exists(), f"{name} exists already"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
            done.files.append(name)
            continue
        text = path.read_text()
        if name == "claims.yaml":
            path.write_text(f"{text.rstrip()}\n\n{code}")
        else:
            assert len(code.strip().splitlines()) == 1, "one line"
            before = re.search(rf"(?m)^{place} = [({{]\n(?:.*\n)*?(?=[)}}]$)", text)
            assert before, f"{name} holds no {place}"
            path.write_text(text[: before.end()] + code + text[before.end() :])
        assert path.read_text() != text
        done.lines[f"{name}: {place}"] = code
    (folder / "my.yaml").write_text(CONFIG.replace("FOLDER", str(finished / "models" / "gpt2-tiny")))
    run = snakemake(done, *TARGETS)
    assert run.returncode == 0, (run.stdout + run.stderr)[-6000:]
    return done


def snakemake(own: Extended, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).parent / "snakemake")
    place = [
        "-s",
        str(own.checkout / "Snakefile"),
        "--directory",
        str(own.folder),
        "--configfile",
        str(own.folder / "my.yaml"),
        "--nocolor",
    ]
    return subprocess.run([program, *arguments, *place], capture_output=True, text=True, timeout=600)


@pytest.fixture
def trials(extended: Extended) -> pl.DataFrame:
    return pl.read_parquet(extended.folder / "results/trials.parquet")


def test_nothing_but_one_line_of_the_registry_and_an_entry_is_touched(extended: Extended) -> None:
    assert sorted(extended.lines) == [
        "claims.yaml: claims",
        *(f"src/coldprefix/study/registry.py: {name}" for name in ("CHECKS", "EDITS", "ENGINES", "FIGURES", "SOURCES")),
    ]
    assert len(extended.files) == 5, "one file each"


def test_an_engine_runs_through_the_workflow_to_a_figure(extended: Extended, trials: pl.DataFrame) -> None:
    own = trials.filter(pl.col("phase") == "phase4")
    # Three processes of two trials: each state by its own cell, and hits as partners of both others.
    assert own.height == 30 and own["valid"].all() and set(own["engine"]) == {"null"}
    medians = dict(own.group_by("state").agg(pl.col("ttft_ms").median()).rows())
    assert medians["miss"] - medians["hit"] > 0.02 * (40 - 8) / 2, "a miss computes 40 tokens, a hit 8, of 0.02 ms each"
    assert json.loads((extended.folder / "results/preflight/phase4.json").read_text())["in_force"]["us_per_token"] == 20
    assert "Null Python" in (extended.folder / "figures/phase4_panels.txt").read_text()


def test_an_edit_is_verified_and_drawn_beside_the_others(extended: Extended, trials: pl.DataFrame) -> None:
    own = trials.filter(pl.col("state") == "question_first")
    assert set(own["phase"]) == {"phase3b", "phase4"} and own["valid"].all(), "on a real engine, too"
    assert set(own["stream_cached_tokens"]) == {0} and set(own["query_prompt_tokens"]) == {104}
    drawn = pl.read_csv(extended.folder / "figures/fig1_invalidation.csv", infer_schema_length=None)
    effects = drawn.filter(pl.col("metric") == "ttft_degradation_pct")
    assert sorted(effects.select("phase", "state").rows()) == [(p, s) for p in ("phase3b", "phase4") for s in ("miss", "question_first")]


def test_a_model_source_makes_the_model_that_is_measured(extended: Extended, finished: Path, trials: pl.DataFrame) -> None:
    record = json.loads((extended.folder / "models/own/coldprefix.json").read_text())
    original = json.loads((finished / "models/gpt2-tiny/coldprefix.json").read_text())
    assert record["source"] == "copied" and record["files"]["model.safetensors"] == original["files"]["model.safetensors"]
    assert set(trials["model"]) == {"own"}


def test_a_claim_names_its_own_test_and_its_figure(extended: Extended) -> None:
    claims = pl.read_parquet(extended.folder / "results/claims.parquet")
    row = claims.filter(pl.col("id") == "X1").row(0, named=True)
    assert row["verdict"] == "supported" and row["effect"] == 100 and row["figure"] == "fig0_reuse"
    assert row["rows"] == ["phase4/main/A64_B32/question_first"]


def test_a_figure_is_drawn_with_its_rows_and_its_caption(extended: Extended) -> None:
    rows = pl.read_csv(extended.folder / "figures/fig0_reuse.csv")
    assert rows.filter(pl.col("phase") == "phase4").sort("state")["stream_cached_tokens"].to_list() == [96, 0, 0]
    assert (extended.folder / "figures/fig0_reuse.png").stat().st_size > 5000
    assert "reused" in (extended.folder / "figures/fig0_reuse.txt").read_text()


def test_adding_things_measures_nothing_again(extended: Extended) -> None:
    """The digest of a cell's code is the same in the copy, for the engines and states that were there before."""
    program = "from coldprefix.study.code import digest; print(*(digest('measure', engine=e, state=s) for e in ('vllm', 'llamacpp') for s in ('hit', 'miss')))"

    def digests(source: Path) -> str:
        return subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONPATH": str(source / "src")}, capture_output=True, text=True, check=True
        ).stdout

    assert digests(extended.checkout) == digests(ROOT)


def test_the_copy_shares_the_cache(extended: Extended) -> None:
    """A checkout elsewhere builds nothing again."""
    link = (extended.checkout / "envs/llamacpp/.venv").readlink()
    assert link.is_relative_to(building.CACHE)
