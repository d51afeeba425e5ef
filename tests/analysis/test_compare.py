"""Two runs side by side: ratios that are known, and refusals that name what differs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import ROOT, Values, with_values
from null_engine import NullSession

from coldprefix.analysis import compare
from coldprefix.data import tables
from coldprefix.data.raw import as_frame, write_cell
from coldprefix.errors import ColdprefixError
from coldprefix.measure import protocol
from coldprefix.study.checks import parse
from coldprefix.study.plan import job_of

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(values: Values, tmp_path: Path) -> MakeRun:
    """A folder of results of null engines whose TTFT is ``ttft_ms`` with some noise; values and host may be changed."""

    def make(
        name: str, ttft_ms: float = 20.0, host: dict[str, Any] | None = None, in_force: dict[str, Any] | None = None, **changes: Any
    ) -> Path:
        base = {
            "settle_ms": 0,
            "trials": 8,
            "burn_in": 1,
            "partners": ["hit", "miss"],
            "phases": ["phase3a", "phase3b"],
            "experiments": ["main"],
            "configurations": ["A512_B256"],
        }
        config = parse(with_values(values, base | changes))
        noise = np.random.default_rng(len(name))
        for cell in config.all_cells():
            job = job_of(config, cell)
            rows: list[protocol.Row] = []
            for process in range(3):
                session = NullSession("slot", process=f"{name} {cell.path} {process}")
                rows += protocol.run_process(session, job, process, len(rows), lambda _: None)
            for row in rows:
                if row["ttft_ms"] is not None:
                    row["ttft_ms"] = ttft_ms * (3 if row["state"] == "miss" else 1) * (1 + 0.02 * noise.standard_normal())
            folder = tmp_path / name / "results" / "raw" / cell.path
            machine = {"cpu": "CPU A", "usable_cpus": 2, "gpus": []} | (host or {})
            record = {
                "host": machine,
                "job": job.model_dump(mode="json"),
                "in_force": {"slots": 1, "version": "v1"} | (in_force or {}),
            }
            write_cell(folder, as_frame(rows), record)
        return tmp_path / name

    return make


def compared(one: Path, other: Path, *vary: str) -> pl.DataFrame:
    a, b = compare.read_run(one), compare.read_run(other)
    compare.check(a, b, vary)
    return compare.compare(a, b)


def test_the_ratio_is_that_of_the_runs_and_its_interval_holds_it(make_run: MakeRun) -> None:
    found = compared(make_run("slow"), make_run("faster", 10.0, host={"cpu": "CPU B"}), "host")
    ttft = found.filter(pl.col("metric") == "ttft_ms")
    assert ttft.height == 4 and set(ttft["n_one"]) == {2 * 3 * 8}, "as own trials and as partners"
    for row in ttft.iter_rows(named=True):
        assert row["ratio"] == pytest.approx(0.5, rel=0.03) and row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert row["ratio_low"] > 0.47 and row["ratio_high"] < 0.53
    factor = found.filter(pl.col("metric") == "degradation")
    assert factor.height == 2
    for row in factor.iter_rows(named=True):
        assert row["one"] == pytest.approx(3, rel=0.05) and row["ratio_low"] < 1 < row["ratio_high"], "both runs lose as much to a miss"


def test_a_run_against_its_copy_is_exactly_1(make_run: MakeRun, tmp_path: Path) -> None:
    one = make_run("run")
    shutil.copytree(one, tmp_path / "copy")
    assert set(compared(one, tmp_path / "copy")["ratio"].drop_nulls()) == {1.0}
    with pytest.raises(ColdprefixError, match="the same folder"):
        compared(one, one)


@pytest.mark.parametrize(
    ("change", "field", "axis"),
    [
        ({"host": {"cpu": "CPU B"}}, "host.cpu", "host"),
        ({"threads": 7}, "job.threads", "host"),
        ({"in_force": {"version": "v2"}}, "in_force.version", "engine"),
        ({"llamacpp.flash_attention": False}, "job.settings", "settings"),
        ({"in_force": {"kv_dtype": "q8_0"}}, "in_force ", "settings"),
        ({"stream_tokens": 20}, "job.protocol.stream_tokens", "protocol"),
    ],
)
def test_what_differs_must_be_declared(make_run: MakeRun, change: dict[str, Any], field: str, axis: str) -> None:
    one, other = make_run("one"), make_run("other", **change)
    with pytest.raises(ColdprefixError) as caught:
        compared(one, other)
    assert f"  {field}" in str(caught.value) and f"allowed by --vary {axis}" in str(caught.value)
    assert compared(one, other, axis).filter(pl.col("ratio").is_not_null()).height
    others = [name for name in compare.AXES if name != axis]
    with pytest.raises(ColdprefixError, match=axis):
        compared(one, other, *others)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"seed": 1}, "job.protocol.seed"), ({"content": "repeated"}, "job.protocol.content"), ({"model": "gpt2-tiny"}, "job.model.identity"), ({"question_tokens": 9}, "job.kinds")],
)  # fmt: skip
def test_what_never_compares_is_refused_whatever_is_declared(make_run: MakeRun, change: dict[str, Any], field: str) -> None:
    one, other = make_run("one"), make_run("other", **change)
    with pytest.raises(ColdprefixError) as caught:
        compared(one, other, *compare.AXES)
    assert f"  {field}" in str(caught.value) and "never comparable" in str(caught.value)


def test_other_prompts_are_refused(make_run: MakeRun) -> None:
    one, other = make_run("one"), make_run("other")
    folder = other / "results/raw/phase3a/A512_B256/hit"
    rows, record = folder / "requests.parquet", folder / "provenance.json"
    write_cell(folder, pl.read_parquet(rows).with_columns(prompt_hash=pl.lit("0" * 16)), json.loads(record.read_text()))
    with pytest.raises(ColdprefixError, match="prompt_hash differs"):
        compared(one, other)


def test_a_cell_of_one_run_only_is_listed_without_a_ratio(make_run: MakeRun) -> None:
    one, other = make_run("one"), make_run("other", phases=["phase3a"])
    alone = compared(one, other).filter(pl.col("phase") == "phase3b")
    assert alone.height and alone["ratio"].null_count() == alone.height and set(alone["only_in"]) == {str(one)}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "workflow/scripts/compare_runs.py"), *map(str, arguments)], capture_output=True, text=True
    )


def test_the_program_writes_table_and_figure_or_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    one, other = make_run("one"), make_run("other", 30.0, host={"cpu": "CPU B"})
    out = tmp_path / "out"
    refused = run("--one", one, "--other", other, "--out", out)
    assert refused.returncode == 1 and "host.cpu" in refused.stderr and "Traceback" not in refused.stderr and not out.exists()
    done = run("--one", one, "--other", other, "--vary", "host", "--names", "old", "new", "--out", out)
    assert done.returncode == 0, done.stderr
    assert 'host.cpu: "CPU A" / "CPU B"' in done.stdout and "1.5" in done.stdout
    assert sorted(p.suffix for p in out.iterdir()) == [".csv", ".parquet", ".pdf", ".png", ".sha256", ".txt"]
    tables.validate(pl.read_parquet(out / "comparison.parquet").drop_nulls("phase"), compare.COMPARISON, "comparison")
    nothing = run("--one", tmp_path, "--other", tmp_path / "none", "--out", out)
    assert nothing.returncode == 1 and "holds no results" in nothing.stderr
