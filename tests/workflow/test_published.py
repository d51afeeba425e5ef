"""What makes a release one: licence, citation, one version, what others are owed, and a run described as an RO-Crate."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

import coldprefix
from coldprefix.files import sha256_of_file
from coldprefix.setup.environments import ensure_environment

SCRIPTS = ROOT / "workflow" / "scripts"
PAGES = runpy.run_path(str(SCRIPTS / "write_metadata.py"))["pages"]()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_metadata_is_up_to_date(path: Path) -> None:
    assert path.read_text() == PAGES[path], "run: make docs"


def test_the_version_stands_in_one_place() -> None:
    version = coldprefix.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    headings = re.findall(r"^## (\d+\.\d+\.\d+)\b", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert headings[0] == version, "the newest heading of CHANGELOG.md"
    assert "version" not in (ROOT / "pyproject.toml").read_text().replace("target-version", "")


def test_the_licence_is_named_alike_and_nothing_hides_the_citation() -> None:
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["license"] == "MIT"
    assert json.loads((ROOT / "codemeta.json").read_text())["license"].endswith("/MIT")
    assert not (ROOT / ".zenodo.json").exists(), "Zenodo would read it instead of CITATION.cff"


def test_the_table_of_licences_has_what_is_locked() -> None:
    """Which licence it is, only an installed package says: make licences."""
    program = runpy.run_path(str(SCRIPTS / "write_licences.py"))
    table = (ROOT / "THIRD_PARTY.md").read_text().partition(program["HEAD"])[2]
    written = dict(re.findall(r"^\| (\S+) \| .+? \| (.+) \|$", table, re.M))
    assert written == {name: ", ".join(where) for name, where in program["locked"]().items()}, "run: make licences"


@pytest.mark.engine
@pytest.mark.slow
def test_a_finished_run_becomes_a_crate_and_an_unfinished_folder_does_not(finished: Path, tmp_path: Path) -> None:
    """roc-validator has the network to ask for RO-Crate's context; so it is asked by hand (docs/publishing.md)."""
    python = ensure_environment("publish") / "bin" / "python"
    results = shutil.copytree(finished / "results", tmp_path / "results")

    def make() -> subprocess.CompletedProcess[str]:
        return subprocess.run([python, SCRIPTS / "make_crate.py", results], capture_output=True, text=True)

    done = make()
    assert done.returncode == 0, done.stderr
    metadata = results / "ro-crate-metadata.json"
    first = metadata.read_bytes()
    entities = {entity["@id"]: entity for entity in json.loads(first)["@graph"]}
    files = {name: entity for name, entity in entities.items() if "sha256" in entity}
    cells = {path.relative_to(results).as_posix() for path in results.glob("raw/**/requests.parquet")}
    assert cells and cells | {"crate/Snakefile", "crate/config.yaml", "report.html"} <= files.keys()
    assert all(entity["sha256"] == sha256_of_file(results / name) for name, entity in files.items())
    action = entities["#run"]
    assert {item["@id"] for item in action["result"]} >= cells and action["startTime"] < action["endTime"]
    make()
    assert metadata.read_bytes() == first, "the same run gives the same bytes"

    (results / "claims.md").unlink()
    metadata.unlink()
    failed = make()
    assert failed.returncode != 0 and "it lacks claims.md; run snakemake" in failed.stderr and not metadata.exists()
