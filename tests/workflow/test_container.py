"""The container's two definitions and their script, as far as that can be told without a container (docs/container.md: what was tried)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

FOLDER = ROOT / "container"
DOCKER, APPTAINER = (FOLDER / "Dockerfile").read_text(), (FOLDER / "coldprefix.def").read_text()
NOBODY = 65534


def test_both_definitions_share_base_script_and_variables() -> None:
    for text in (DOCKER, APPTAINER):
        assert "/opt/coldprefix/container/install.sh" in text and "/opt/coldprefix/container/run.sh" in text
    (base,) = re.findall(r"^FROM (\S+)$", DOCKER, re.M)
    assert [base] == re.findall(r"^From: (\S+)$", APPTAINER, re.M)
    assert re.fullmatch(r"debian:bookworm-\d{8}-slim(@sha256:[0-9a-f]{64})?", base), "a tag that does not move"
    told = set(re.findall(r"(?:COLDPREFIX_CACHE|HF_HUB_OFFLINE|UV_OFFLINE)=\S+", DOCKER))
    assert told == set(re.findall(r"(?:COLDPREFIX_CACHE|HF_HUB_OFFLINE|UV_OFFLINE)=\S+", APPTAINER)) and len(told) == 3
    users = re.findall(r"^USER (\S+)$", DOCKER, re.M)
    assert users == ["coldprefix"], "not root"


@pytest.mark.parametrize("name", ["install.sh", "run.sh"])
def test_the_scripts_are_for_any_shell(name: str) -> None:
    assert (FOLDER / name).read_text().startswith("#!/bin/sh\n")
    assert subprocess.run(["dash" if shutil.which("dash") else "sh", "-n", FOLDER / name]).returncode == 0


def test_installing_is_refused_to_who_is_not_root() -> None:
    """Before anything is installed."""
    script = (FOLDER / "install.sh").read_text()
    other = NOBODY if os.getuid() == 0 else None
    done = subprocess.run(["sh"], input=script, user=other, group=other, capture_output=True, text=True, cwd="/")
    assert done.returncode == 1 and "run as root, in a container" in done.stderr


def test_run_starts_snakemake_of_this_checkout_in_the_current_folder(tmp_path: Path) -> None:
    done = subprocess.run([FOLDER / "run.sh", "--list-rules"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "phase3b" in done.stdout.split(), done.stderr
    assert (tmp_path / ".snakemake").is_dir() and not (tmp_path / "results").exists()


def test_no_result_or_environment_of_the_host_gets_into_an_image() -> None:
    left_out = {line.strip("/*") for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")}
    ignored = {line.strip("/*") for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("/")}
    assert ignored <= left_out, ignored - left_out
