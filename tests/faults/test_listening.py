"""Who can listen to a running server, and what is told to whom."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fault_run import PATIENCE_S, Run, belonging, cmdline, status_without_key, until

from coldprefix.engines.vllm.arguments import environment
from coldprefix.job import Job

pytestmark = pytest.mark.engine


def test_a_running_server_listens_to_nobody_else_and_its_key_is_told_to_nobody(run: Run) -> None:
    """Of vLLM the same is seen in test_pipeline.py, all through a run."""
    run.start()
    engine = run.wait_for_second_cell()
    processes = belonging(run.folder)
    listening = [c for p in processes for c in p.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
    assert all(c.laddr.ip == "127.0.0.1" for c in listening), listening
    key = engine.environ()["LLAMA_API_KEY"]
    assert len(key) >= 32
    for process in psutil.process_iter(["cmdline"]):
        assert key not in " ".join(process.info["cmdline"] or []), "every user can read command lines"
    path = next(part for part in cmdline(engine) if part.endswith("engine.sock"))
    assert Path(path).parent.stat().st_mode & 0o077 == 0
    # While it loads its model it tells everybody that, and nothing else.
    assert until(lambda: s if (s := status_without_key(path, "/completion")) != 503 else None, PATIENCE_S, "an answer") == 401
    assert run.process is not None and run.process.wait(PATIENCE_S) == 0
    assert not [p for p in run.folder.rglob("*") if p.is_file() and key.encode() in p.read_bytes()]


def test_a_token_is_in_no_file_and_a_strange_folder_is_no_command(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's name is the user's; every other name in a command is checked (test_config.py)."""
    token = "hf_" + hashlib.sha256(b"no real one").hexdigest()[:34]
    monkeypatch.setenv("HF_TOKEN", token)
    folder = tmp_path / 'it\'s "a" $(touch broken); folder & `touch broken` #1'
    shutil.copytree(template, folder)
    own = Run(folder)
    own.start("--config", "states=miss")
    assert own.process is not None and own.process.wait(PATIENCE_S) == 0, own.output()[-3000:]
    assert (own.cell(own.cells[1]) / "requests.parquet").exists() and not list(tmp_path.rglob("broken"))
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert len(files) > 20 and not [p for p in files if token.encode() in p.read_bytes()]
    own.tmp.rmdir()  # empty: nothing was left there


def test_engines_get_no_token(make_job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setenv("HF_TOKEN", "secret")
    assert "secret" not in environment(make_job("phase1", "hit")).values()
