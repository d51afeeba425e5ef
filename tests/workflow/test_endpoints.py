"""An endpoint through the workflow: a server that somebody else runs is measured by the rule of a cell, and is left as it is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT
from llama import Llama
from told_server import ToldServer

from coldprefix.models import prepare
from coldprefix.study.checks import load

Run = Callable[..., subprocess.CompletedProcess[str]]
SHORT = """
experiments: [main]
configurations: [A64_B64]
states: [hit]
partners: [miss]
question_tokens: 8
processes: 1
trials: 2
burn_in: 0
settle_ms: 0
stream_tokens: 2
"""
TRIALS = "results/experiments/main/trials.parquet"


def write(folder: Path, **entries: dict[str, object]) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "my.yaml").write_text(f"{SHORT}endpoints: {json.dumps(entries)}\nphases: {json.dumps(list(entries))}\n")
    return ["--configfile", f"{folder}/my.yaml"]


@pytest.mark.engine
@pytest.mark.slow
def test_a_running_server_is_a_phase_and_runs_on(
    snakemake: Run, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path_factory.mktemp("models")
    prepare.ensure_gguf("gpt2-tiny", load(ROOT / "config.yaml").models["gpt2-tiny"], models)
    key = "sk-this-is-the-key"
    with Llama(models / "gpt2-tiny-F16.gguf", "--api-key", key) as server:
        own = write(tmp_path / "run", prod={"url": server.url, "api_key_env": "OWN_KEY"})
        done = snakemake(tmp_path / "run", *own, "--", TRIALS)
        assert done.returncode and "the environment variable OWN_KEY holds no key" in done.stderr
        monkeypatch.setenv("OWN_KEY", key)
        done = snakemake(tmp_path / "run", *own, "--", TRIALS)
        assert done.returncode == 0, done.stderr
        trials = pl.read_parquet(tmp_path / "run" / TRIALS).filter("valid")
        assert set(zip(trials["state"], trials["stream_cached_tokens"], trials["stream_evaluated_tokens"], strict=True)) <= {
            ("hit", 128, 8),
            ("miss", 0, 72),
        }
        assert trials.height >= 2 and set(trials["phase"]) == {"prod"} and trials["engine_process"].n_unique() == 1
        again = snakemake(tmp_path / "run", *own, "--forcerun", "prod", "--", TRIALS)  # the server knows the earlier run's prompts
        assert again.returncode == 0, again.stderr
        record = json.loads((tmp_path / "run" / "results/raw/prod/A64_B64/hit/provenance.json").read_text())
        assert record["in_force"]["slots"] == 4 and record["in_force"]["threads"] == "unknown"
        assert record["noted"][0]["round_trip_ms"] > 0 and record["noted"][0]["looked_for_others"] >= 2
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert not [file for file in files if key.encode() in file.read_bytes()]
    assert key not in done.stdout + done.stderr


@pytest.mark.slow
def test_what_is_not_reported_is_refused_or_kept_as_unverified(snakemake: Run, tmp_path: Path) -> None:
    with ToldServer(lambda _reused: {"prompt_tokens_details": None}) as server:
        own = write(tmp_path / "run", prod={"url": server.url})
        done = snakemake(tmp_path / "run", *own, "--", TRIALS)
        assert done.returncode and "prod does not report how many tokens it reused" in done.stderr
        assert not list((tmp_path / "run" / "results").rglob("requests.parquet"))
        done = snakemake(tmp_path / "run", *own, "--config", "max_rejected=1", "--", TRIALS)
        assert done.returncode == 0, done.stderr
    trials = pl.read_parquet(tmp_path / "run" / TRIALS)
    assert trials.height == 4 and not trials["valid"].any()
    assert all("did not report how many tokens it reused: usage" in why for why in trials["rejection"])
