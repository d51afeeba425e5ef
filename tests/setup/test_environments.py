"""Environments and builds: what is missing is said at once, and nothing half-made is taken for whole."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from coldprefix.errors import ColdprefixError
from coldprefix.setup import building, environments

SET_UP = str(ROOT / "workflow" / "scripts" / "set_up.py")


def test_missing_tools_are_all_named_with_what_installs_them(tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to(sys.executable)
    env = {"PATH": str(tmp_path), "COLDPREFIX_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, SET_UP, "driver"], capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert "make: apt-get install make" in done.stderr and "apt-get install g++" in done.stderr
    assert not (tmp_path / "cache").exists(), "nothing is begun on a machine that cannot finish"


def test_an_unknown_environment_is_refused() -> None:
    with pytest.raises(ColdprefixError, match="no environment named 'vllm-tpu'"):
        environments.ensure_environment("vllm-tpu")


@pytest.mark.parametrize("name", sorted(p.parent.name for p in (ROOT / "envs").glob("*/requirements.in")))
def test_locks_pin_every_package_with_hashes_and_no_addresses(name: str) -> None:
    lock = (ROOT / "envs" / name / "requirements.txt").read_text()
    assert "://" not in lock
    blocks = re.split(r"\n(?=[A-Za-z0-9])", lock.strip())
    for block in blocks:
        assert re.match(r"[\w.\[\]-]+==[\w.+!-]+", block), block[:80]
        assert "--hash=sha256:" in block, block[:80]
    left_out = {"vllm-cpu": ("torchvision", "torchaudio", "torchcodec", "triton")}.get(name, ())
    assert not any(re.search(rf"^{package}==", lock, re.M) for package in left_out)


def test_the_key_follows_the_lock_and_what_finishes_it_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "envs" / "x").mkdir(parents=True)
    lock = tmp_path / "envs" / "x" / "requirements.txt"
    lock.write_text("a==1\n")
    monkeypatch.setattr(building, "ROOT", tmp_path)
    first = environments.environment_key("x")
    os.utime(lock, (1, 1))
    lock.with_suffix(".in").write_text("a\n")
    assert environments.environment_key("x") == first
    lock.write_text("a==2\n")
    second = environments.environment_key("x")
    lock.with_name("finish.py").write_text("def finish(folder, log): pass\n")
    assert len({first, second, environments.environment_key("x")}) == 3


def test_an_interrupted_build_is_made_anew_and_a_finished_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With uv replaced by a script that records its calls: what is tested is when it is called."""
    calls = tmp_path / "calls"
    uv = tmp_path / "uv"
    uv.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\n"
        f"open({str(calls)!r}, 'a').write(sys.argv[1] + '\\n')\n"
        "if sys.argv[1] == 'venv':\n"
        "    folder = pathlib.Path(sys.argv[-1]); (folder / 'bin').mkdir(parents=True); (folder / 'bin' / 'python').touch()\n"
        "if sys.argv[1] == 'pip' and pathlib.Path(%r).exists():\n    print('no space left on device'); sys.exit(2)\n"
        % str(tmp_path / "full")
    )
    uv.chmod(0o755)
    (tmp_path / "envs" / "x").mkdir(parents=True)
    (tmp_path / "envs" / "x" / "requirements.txt").write_text("a==1\n")
    monkeypatch.setattr(building, "ROOT", tmp_path)
    monkeypatch.setattr(environments, "uv", lambda: uv)
    monkeypatch.setattr(building, "CACHE", tmp_path / "cache")
    (tmp_path / "full").touch()
    with pytest.raises(ColdprefixError, match=r"(?s)environment x failed \(exit code 2\).*no space left on device"):
        environments.ensure_environment("x")
    assert not (tmp_path / "envs" / "x" / ".venv").exists()
    (tmp_path / "full").unlink()
    folder = environments.ensure_environment("x")
    assert calls.read_text().split() == ["venv", "pip", "venv", "pip"]
    assert environments.ensure_environment("x") == folder
    assert calls.read_text().split() == ["venv", "pip", "venv", "pip"]
    assert (tmp_path / "envs" / "x" / ".venv").resolve() == folder.resolve()
    assert json.loads((folder / "complete.json").read_text())["build_seconds"] >= 0


def test_an_environment_is_whole_when_its_last_step_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\nfor last; do :; done\n[ "$1" != venv ] || { mkdir -p "$last/bin"; touch "$last/bin/python"; }\n')
    uv.chmod(0o755)
    (tmp_path / "envs" / "x").mkdir(parents=True)
    (tmp_path / "envs" / "x" / "requirements.txt").write_text("a==1\n")
    monkeypatch.setattr(building, "ROOT", tmp_path)
    monkeypatch.setattr(building, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(environments, "uv", lambda: uv)
    last = tmp_path / "envs" / "x" / "finish.py"
    last.write_text("def finish(folder, log):\n    raise RuntimeError('no compiler')\n")
    with pytest.raises(RuntimeError, match="no compiler"):
        environments.ensure_environment("x")
    assert not list((tmp_path / "cache").rglob("complete.json"))
    last.write_text("def finish(folder, log):\n    (folder / 'last').write_text(log.name)\n")
    folder = environments.ensure_environment("x")
    assert (folder / "last").read_text() == f"{folder.name}.log" and (folder / "complete.json").exists()


def test_progress_of_a_build_is_passed_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = "for i in range(1, 21): print(f'[{i}/20] Building CXX object')"
    building.run([sys.executable, "-c", program], tmp_path / "log", "a build")
    assert "a build: 50 % (10 of 20)" in capsys.readouterr().err
    assert "[20/20]" in (tmp_path / "log").read_text()


def test_uv_finds_cpu_torch_where_pip_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", "/some/wheels")
    assert environments.installer_environment("vllm-cpu")["UV_FIND_LINKS"] == "/some/wheels"
    assert "UV_FIND_LINKS" not in environments.installer_environment("vllm-cuda")
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert environments.installer_environment("vllm-cpu")["UV_TORCH_BACKEND"] == "cpu"
