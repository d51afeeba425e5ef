"""As Snakemake's own tools see the workflow: its linter, its report, and as a module of another workflow."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from test_workflow import jobs

Run = Callable[..., subprocess.CompletedProcess[str]]
# Environments are made by set_up.py from locks with hashes, and keyed by content; a conda environment would be a second, looser one.
REMAINS = "Specify a conda environment or container for each rule."
IMPORTER = """
module coldprefix:
    snakefile: "{snakefile}"
    config: config
use rule * from coldprefix as {names}
"""


@pytest.fixture
def module(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Snakemake on another workflow that uses this one as a module."""
    program = str(Path(sys.executable).parent / "snakemake")

    def run(names: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "Snakefile").write_text(IMPORTER.format(snakefile=ROOT / "Snakefile", names=names))
        command = [program, "--directory", str(tmp_path), "-s", str(tmp_path / "Snakefile"), "--cores", "1", "--nocolor", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    return run


def test_the_linter_finds_nothing_but_that_there_is_no_conda(snakemake: Run, tmp_path: Path) -> None:
    """With the rules that only some configurations have, too."""
    asked = ["compare={one: a, other: b, vary: host}", f"layout={ROOT / 'docs' / 'prompt.yaml'}", "experiments=scaling,layout"]
    done = snakemake(tmp_path, "--lint", "--config", *asked)
    said = done.stdout + done.stderr
    assert set(re.findall(r"^    \* (.*?):?$", said, re.M)) == {REMAINS}, said
    assert {"phase3b", "fig2_scaling", "compare", "layout", "report"} <= set(re.findall(r"^Lints for rule (\w+)", said, re.M))
    assert not re.search(r"^Lints for snakefile", said, re.M)


def test_another_workflow_uses_it_as_a_module(snakemake: Run, tmp_path: Path, module: Run) -> None:
    """Under other names, with values of its own over those of config.yaml: the same jobs."""
    values = ["--config", "phases=phase3b", "model=gpt2-tiny", "experiments=main"]
    (tmp_path / "alone").mkdir()
    alone, used = jobs(snakemake(tmp_path / "alone", "-n", *values)), module("cold_*", "-n", *values)
    assert used.returncode == 0, used.stderr
    found = {rule.removeprefix("cold_"): count for rule, count in jobs(used).items()}
    assert found == alone and found["phase3b"] == 6
    assert not (tmp_path / "results").exists(), "a dry run writes nothing"


def test_a_module_s_jobs_find_the_plan_and_keep_what_they_say(tmp_path: Path, module: Run) -> None:
    """Also when a job fails, which the pipe to its log must not hide."""
    done = module("*", "results/setup/models/gpt2-tiny.json", "--config", "model=gpt2-tiny", "phases=phase3b")
    assert done.returncode == 0, done.stderr
    cells = json.loads((tmp_path / "results/plan.json").read_text())["cells"]
    assert cells and all(cell.startswith("phase3b/") for cell in cells)
    log = tmp_path / "results/logs/setup/models/gpt2-tiny.log"
    assert "coldprefix: model gpt2-tiny: generating" in log.read_text()

    wrong = "models={gpt2-tiny: {sha256: '" + "0" * 64 + "'}}"
    (tmp_path / "results/setup/models/gpt2-tiny.json").unlink()
    failed = module("*", "results/setup/models/gpt2-tiny.json", "--config", "model=gpt2-tiny", "phases=phase3b", wrong)
    assert failed.returncode != 0 and not (tmp_path / "results/setup/models/gpt2-tiny.json").exists()
    for text in (failed.stderr, log.read_text()):
        assert re.search(r"^coldprefix: the stand-in gpt2-tiny has the sha256 ", text, re.M)


@pytest.mark.engine
def test_snakemake_s_report_shows_the_figures_with_their_captions(finished: Path, again: Run, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = again("--report", str(page))
    assert done.returncode == 0, done.stderr[-3000:]
    text = page.read_text()
    categories = json.loads(re.search(r"var categories = (.*?);?\n", text)[1])  # type: ignore[index]
    assert {"Figures", "Backends", "Instrument", "Claims", "Everything in one file"} <= set(categories)
    for name in ("fig1_invalidation", "fig4_cascade", "phase3b_panels", "calibration"):
        assert base64.b64encode((finished / "figures" / f"{name}.png").read_bytes()).decode() in text, name
        words = re.findall(r"\w+", (finished / "figures" / f"{name}.txt").read_text())[:6]
        assert re.search(r"\W+".join(words), text), f"no caption of {name}"
