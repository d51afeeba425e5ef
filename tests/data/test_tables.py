"""Aggregation and statistics: every number from rows whose result is known by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from null_engine import NullSession

from coldprefix.analysis.statistics import degradation_pct, estimate
from coldprefix.analysis.summary import summary_of, table, trials_of
from coldprefix.data import parquet, tables
from coldprefix.data import raw as raw_files
from coldprefix.errors import ColdprefixError
from coldprefix.files import partial_of, sha256_of
from coldprefix.job import Job
from coldprefix.measure import protocol

MakeJob = Callable[..., Job]


def row(step: str, **values: Any) -> dict[str, Any]:
    base: dict[str, Any] = dict.fromkeys(tables.REQUESTS)
    base |= {"phase": "phase3a", "engine": "llamacpp", "interface": "http", "configuration": "A512_B256", "state": "hit", "model": "m"}
    base |= {"sweep": "main", "variant": "main", "request_form": "tokens", "content": "fresh"}
    base |= {"replicate": 0, "trial": 0, "burn_in": False, "order": 0, "step": step, "prompt_tokens": 10, "prompt_hash": "x"}
    base |= {"total_ms": 1.0, "token_times_ms": [], "started_at": datetime(2026, 1, 1, tzinfo=UTC)}
    return base | values


def trials(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return trials_of(raw_files.as_frame(rows).lazy()).collect().cast(tables.schema(tables.TRIALS))


def one_trial(**of_stream: Any) -> list[dict[str, Any]]:
    stream = {"ttft_ms": 23.6, "total_ms": 500.0, "token_times_ms": [23.6, 27.6, 31.6, 43.6], "cached_tokens": 8, "evaluated_tokens": 2}
    stream |= {"engine_prompt_ms": 22.1} | of_stream
    return [
        row("warmup", total_ms=300.0, cached_tokens=0),
        row("query", total_ms=24.2, cached_tokens=8, evaluated_tokens=2),
        row("rewarm", total_ms=7.0, cached_tokens=7),
        row("stream", **stream),
    ]


def test_a_trial_s_metrics() -> None:
    (trial,) = trials(one_trial()).iter_rows(named=True)
    assert trial["warmup_ms"] == 300.0 and trial["rewarm_ms"] == 7.0 and trial["rewarm_cached_tokens"] == 7
    assert trial["ttft_ms"] == 23.6 and trial["ttft_non_streaming_ms"] == 24.2
    assert trial["overhead_ms"] == pytest.approx(-0.6)
    assert trial["client_ms"] == pytest.approx(1.5)
    assert trial["throughput_tok_s"] == pytest.approx(3 / 0.020)  # three tokens after the first in 20 ms
    assert trial["valid"] is True


def test_what_is_unknown_stays_null() -> None:
    rows = one_trial(engine_prompt_ms=None, token_times_ms=[23.6])
    (trial,) = trials([r | {"interface": "python", "phase": "phase3b"} for r in rows]).iter_rows(named=True)
    unknown = ("client_ms", "engine_prompt_ms", "throughput_tok_s", "ttft_non_streaming_ms", "overhead_ms", "foreign_cpu")
    assert {key: trial[key] for key in unknown} == dict.fromkeys(unknown)
    assert trial["query_ms"] == 24.2


def many(n: int, state: str, ttft: Callable[[int], float], rejected: int = 0) -> list[dict[str, Any]]:
    rows = []
    for t in range(n + rejected + 1):
        changes: dict[str, Any] = {"trial": t, "state": state, "burn_in": t == 0}
        if t > n:
            changes["rejection"] = "reused 5 tokens, should be 0"
        rows += [r | changes for r in one_trial(ttft_ms=1e6 if t == 0 or t > n else ttft(t))]
    return rows


def test_summary_leaves_out_burn_in_and_rejected_trials_and_counts_them() -> None:
    found = summary_of(trials(many(5, "hit", lambda t: 10.0 + t) + many(4, "miss", lambda t: 100.0 + t, rejected=2)))
    tables.validate(found, tables.SUMMARY, "summary")
    hit = found.filter(pl.col("metric") == "ttft_ms", pl.col("state") == "hit").row(0, named=True)
    assert (hit["n"], hit["median"], hit["mean"], hit["n_rejected"], hit["n_burn_in"]) == (5, 13.0, 13.0, 0, 1)
    assert hit["sd"] == pytest.approx(np.std([11, 12, 13, 14, 15], ddof=1))
    assert 11 <= hit["ci_low"] < 13 < hit["ci_high"] <= 15
    miss = found.filter(pl.col("metric") == "ttft_ms", pl.col("state") == "miss").row(0, named=True)
    assert (miss["n"], miss["n_rejected"]) == (4, 2)
    effect = found.filter(pl.col("metric") == "ttft_degradation_pct").row(0, named=True)
    assert effect["state"] == "miss" and effect["median"] == pytest.approx(100 * (102.5 / 13 - 1))
    assert effect["ci_low"] < effect["median"] < effect["ci_high"]
    text = table(found)
    assert "13.0 [" in text and "688 [" in text


def test_a_cell_without_a_valid_trial_has_null_statistics() -> None:
    found = summary_of(trials(many(0, "miss", lambda t: 1.0, rejected=3)))
    ttft = found.filter(pl.col("metric") == "ttft_ms").row(0, named=True)
    assert (ttft["n"], ttft["n_rejected"], ttft["mean"], ttft["median"], ttft["ci_low"]) == (0, 3, None, None, None)
    assert "-" in table(found)


@given(st.lists(st.floats(0.1, 1e6), min_size=3, max_size=30))
@settings(max_examples=25, deadline=None)
def test_an_interval_holds_its_median_and_lies_within_the_data(values: list[float]) -> None:
    found = estimate(np.array(values))
    assert found.ci_low is not None and found.ci_high is not None and found.median is not None
    last_digit = 1 + 1e-12  # a percentile is interpolated
    assert min(values) <= found.ci_low * last_digit and found.ci_low <= found.median <= found.ci_high <= max(values) * last_digit


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """200 simulated cells of 12 trials: a 95 % interval of the median must hold the true one in most of them."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        found = estimate(100 + rng.standard_normal(12))
        assert found.ci_low is not None and found.ci_high is not None
        held += found.ci_low <= 100 <= found.ci_high
    assert 0.88 <= held / 200 <= 1.0


def test_degradation_is_scale_free_and_needs_both_sides() -> None:
    hit, miss = np.array([10.0, 11, 12]), np.array([50.0, 55, 60])
    assert degradation_pct(hit, miss).median == pytest.approx(400)
    assert degradation_pct(7 * hit, 7 * miss).ci_low == pytest.approx(degradation_pct(hit, miss).ci_low)
    assert degradation_pct(hit, np.array([])).median is None
    assert estimate(np.array([3.0, 4.0])).ci_low is None and estimate(np.array([5.0] * 4)).ci_low == 5.0


def write_cell(folder: Path, job: Job, session: NullSession, **host: Any) -> None:
    rows = protocol.run_replicate(session, job, 0, 0, lambda _: None)
    cell = folder / job.cell
    machine = {"cpu": "a CPU", "usable_cpus": 2, "gpus": []} | host
    record: dict[str, Any] = {
        "host": machine,
        "job": job.model_dump(mode="json"),
        "in_force": session.in_force() | {"command": [job.state]},
    }
    record |= {"job_s": 2.0, "wall_s": 1.5, "engine_busy_s": 1.0, "engine_start_s": [0.2], "settle_s": 0.0}
    record |= {"finished_at": "2026-01-01T00:00:00+00:00"}
    raw_files.write_cell(cell, raw_files.as_frame(rows), record)
    plan(folder, job)


def plan(raw: Path, job: Job) -> None:
    """Make this the job that the configuration asks for, in plan.json beside the folder of raw files."""
    path = raw.with_name("plan.json")
    cells = json.loads(path.read_text())["cells"] if path.exists() else {}
    path.write_text(json.dumps({"cells": cells | {job.cell: job.model_dump(mode="json")}}))


FAST = {"settle_ms": 0, "trials": 3, "burn_in": 1}


def run_aggregate(raw: Path, out: Path, *cells: str) -> subprocess.CompletedProcess[str]:
    """The program, with the jobs of these cells as its plan."""
    out.mkdir(exist_ok=True)
    planned = json.loads(raw.with_name("plan.json").read_text())["cells"]
    asked = raw.with_name("asked.json")
    asked.write_text(json.dumps({"cells": {cell: planned[cell] for cell in cells}, "experiments": {}}))
    command = [sys.executable, str(ROOT / "workflow/scripts/aggregate.py"), "--plan", str(asked), "--raw", str(raw)]
    return subprocess.run([*command, "--out", str(out), "--requests"], capture_output=True, text=True)


@pytest.fixture
def raw(tmp_path: Path, make_job: MakeJob) -> Path:
    for state in ("hit", "miss"):
        write_cell(tmp_path / "raw", make_job("phase3a", state, FAST), NullSession("slot"))
    return tmp_path / "raw"


CELLS = ("phase3a/A512_B256/hit", "phase3a/A512_B256/miss")


def test_the_program_writes_all_tables(raw: Path, tmp_path: Path) -> None:
    done = run_aggregate(raw, tmp_path / "out", *CELLS)
    assert done.returncode == 0, done.stderr
    for name, columns in (("requests", tables.REQUESTS), ("trials", tables.TRIALS), ("summary", tables.SUMMARY)):
        tables.validate(pl.read_parquet(tmp_path / "out" / f"{name}.parquet"), columns, name)
    assert pl.read_parquet(tmp_path / "out" / "requests.parquet").height == 2 * 4 * 4
    assert "phase3a  main     A512_B256" in done.stdout and done.stdout.strip() == (tmp_path / "out" / "summary.txt").read_text().strip()


def spoil(path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    parquet.write_parquet(change(pl.read_parquet(path)), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("cached_tokens"), "the columns are not those of schema version"),
        (lambda f: f.with_columns(pl.col("total_ms").cast(pl.Int64)), "the columns are not those of schema version"),
        (lambda f: f.with_columns(total_ms=-pl.col("total_ms")), "negative"),
        (lambda f: f.with_columns(state=pl.lit("miss")), "not the cell phase3a/A512_B256/hit"),
        (lambda f: f.with_columns(ttft_ms=pl.col("ttft_ms") - 1), "it has been edited, or mixed up with another run's"),
    ],
)
def test_a_spoilt_raw_file_is_refused(raw: Path, tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], message: str) -> None:
    spoil(raw / CELLS[0] / "requests.parquet", change)
    if "edited" not in message:  # of a measuring job that went wrong, not of a hand
        record = raw / CELLS[0] / "provenance.json"
        digest = sha256_of((raw / CELLS[0] / "requests.parquet").read_bytes())
        record.write_text(json.dumps(raw_files.sealed(json.loads(record.read_text()) | {"requests_sha256": digest})))
    done = run_aggregate(raw, tmp_path / "out", *CELLS)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "out").iterdir())


def test_a_cell_in_another_s_place_is_refused(raw: Path, tmp_path: Path) -> None:
    hit, miss = (raw / cell for cell in CELLS)
    for name in ("requests.parquet", "provenance.json"):
        (hit / name).write_bytes((miss / name).read_bytes())
    done = run_aggregate(raw, tmp_path / "out", *CELLS)
    assert done.returncode == 1 and f"provenance.json is of the cell {CELLS[1]}" in done.stderr
    (hit / "provenance.json").write_text("{")
    assert "cannot read" in run_aggregate(raw, tmp_path / "out", *CELLS).stderr


def change_record(cell: Path, **changes: Any) -> None:
    path = cell / "provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_edited_record_is_refused(raw: Path, tmp_path: Path) -> None:
    """Numbers that are only in the record are results too: what was in force, how busy the machine was."""
    change_record(raw / CELLS[0], wall_s=0.5)
    done = run_aggregate(raw, tmp_path / "out", *CELLS)
    assert done.returncode == 1 and "provenance.json is not as the measuring job wrote it" in done.stderr
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(("version", "told"), [(3, "the schema version 3"), (None, "no schema version"), (99, "the schema version 99")])
def test_another_schema_is_refused_by_its_name(raw: Path, tmp_path: Path, version: int | None, told: str) -> None:
    """And not as an edited file, although older records carry no checksum."""
    change_record(raw / CELLS[0], schema_version=version, record_sha256=None, requests_sha256=None)
    done = run_aggregate(raw, tmp_path / "out", *CELLS)
    assert done.returncode == 1 and f"provenance.json has {told}, this coldprefix reads 5. Use the coldprefix that wrote it" in done.stderr


@pytest.mark.parametrize("text", ["", "[]", "null", "3", '{"schema_version": 5}', '{"job": {}}', "\xff"])
def test_a_record_that_is_none_is_refused(raw: Path, tmp_path: Path, text: str) -> None:
    (raw / CELLS[0] / "provenance.json").write_bytes(text.encode("latin-1"))
    done = run_aggregate(raw, tmp_path / "out", *CELLS)
    assert done.returncode == 1 and "provenance.json" in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("missing", [False, True])
def test_a_table_that_is_not_as_it_was_written_is_drawn_by_nobody(raw: Path, tmp_path: Path, values: dict[str, Any], missing: bool) -> None:
    """Snakemake takes an edited table of a shipped folder for up to date."""
    out = tmp_path / "out"
    assert run_aggregate(raw, out, *CELLS).returncode == 0
    assert subprocess.run(["sha256sum", "--check", *(p.name for p in out.glob("*.sha256"))], cwd=out, capture_output=True).returncode == 0
    if missing:
        (out / "summary.parquet.sha256").unlink()
    else:
        spoil(out / "summary.parquet", lambda f: f.with_columns(median=pl.col("median") * 1.1))
    (tmp_path / "look.json").write_text(json.dumps({"figures": values["figures"]}))
    for script, *more in (("plot.py", "phase3a_panels", "--plan", str(tmp_path / "look.json")), ("build_report.py",)):
        command = [sys.executable, str(ROOT / "workflow/scripts" / script), *more, "--out", str(tmp_path / "drawn.pdf")]
        for name, file in (("trials", "trials.parquet"), ("summary", "summary.parquet"), ("provenance", "provenance.json")):
            command += [f"--{name}", str(out / file)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert f"Delete {out / 'summary.parquet'} and run snakemake again to make it anew" in done.stderr
    assert not (tmp_path / "drawn.pdf").exists()


@pytest.mark.parametrize("text", ["", "{", "3", "[3]", "[{}]", '[{"record_sha256": "0"}]', "\xff"])
def test_records_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "provenance.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ColdprefixError, match=r"provenance\.json.*and run snakemake again"):
        raw_files.read_records(tmp_path / "provenance.json")


def test_what_a_killed_aggregation_left_is_no_part_of_the_next(raw: Path, tmp_path: Path) -> None:
    parts = tmp_path / "out" / ".parts"
    parts.mkdir(parents=True)
    assert run_aggregate(raw, tmp_path / "clean", *CELLS).returncode == 0
    (parts / "000007.parquet").write_bytes((tmp_path / "clean" / "trials.parquet").read_bytes())
    assert run_aggregate(raw, tmp_path / "out", *CELLS).returncode == 0
    assert (tmp_path / "out" / "trials.parquet").read_bytes() == (tmp_path / "clean" / "trials.parquet").read_bytes()
    assert not parts.exists()


def test_rows_of_another_run_are_refused(raw: Path, tmp_path: Path, make_job: MakeJob) -> None:
    """The same cell, measured twice: the rows of one with the record of the other."""
    kept = (raw / CELLS[0] / "requests.parquet").read_bytes()
    write_cell(raw, make_job("phase3a", "hit", FAST), NullSession("slot", ttft_ms=11.0))
    (raw / CELLS[0] / "requests.parquet").write_bytes(kept)
    done = run_aggregate(raw, tmp_path / "out", *CELLS)
    assert done.returncode == 1 and "mixed up with another run's" in done.stderr and not list((tmp_path / "out").iterdir())


def test_a_cell_that_was_measured_by_another_job_than_planned_is_refused(raw: Path, tmp_path: Path, make_job: MakeJob) -> None:
    """As after `snakemake --touch`: it looks up to date."""
    plan(raw, make_job("phase3a", "miss", FAST | {"settle_ms": 500}))
    done = run_aggregate(raw, tmp_path / "out", *CELLS)
    told = f"{CELLS[1]} was measured with protocol.settle_ms 0, the configuration asks for 500 now"
    assert done.returncode == 1 and told in done.stderr and "Traceback" not in done.stderr and not list((tmp_path / "out").iterdir())
    plan(raw, make_job("phase3a", "miss", FAST | {"timeout_s": 500}))
    assert run_aggregate(raw, tmp_path / "out", *CELLS).returncode == 0, "patience decides no number"


def test_a_truncated_raw_file_is_refused(raw: Path, tmp_path: Path) -> None:
    path = raw / CELLS[1] / "requests.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    done = run_aggregate(raw, tmp_path / "out", *CELLS)
    assert done.returncode == 1 and f"{path} is not the file whose checksum" in done.stderr
    path.unlink()
    assert f"cannot read {path}" in run_aggregate(raw, tmp_path / "out", *CELLS).stderr


def test_cells_of_different_machines_are_not_put_together(raw: Path, tmp_path: Path, make_job: MakeJob) -> None:
    write_cell(raw, make_job("phase3a", "miss", FAST), NullSession("slot"), cpu="another CPU")
    done = run_aggregate(raw, tmp_path / "out", *CELLS)
    assert done.returncode == 1 and "host.cpu is 'a CPU' for phase3a/A512_B256/hit and 'another CPU'" in done.stderr


def test_phases_with_different_prompts_are_not_put_together(raw: Path, tmp_path: Path, make_job: MakeJob) -> None:
    write_cell(raw, make_job("phase3b", "hit", FAST | {"seed": 1}), NullSession("slot"))
    done = run_aggregate(raw, tmp_path / "out", *CELLS, "phase3b/A512_B256/hit")
    assert done.returncode == 1 and "were not sent the same tokens" in done.stderr


def test_a_parquet_file_without_its_end_gets_no_name(tmp_path: Path) -> None:
    """Polars has been seen to end without an error when the last write of all met a full disk."""
    with pytest.raises(ColdprefixError, match="no space left on the disk"), parquet._whole(tmp_path / "x.parquet") as partial:
        partial.write_bytes(b"PAR1 rows, but no footer")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_whole_is_not_written(tmp_path: Path) -> None:
    """A full disk: /dev/full takes no byte. The final name must not appear, nor a partial file."""
    target = tmp_path / "requests.parquet"
    partial_of(target).symlink_to("/dev/full")
    with pytest.raises(ColdprefixError, match=r"no space left on the disk for .*requests\.parquet; make room"):
        parquet.write_parquet(raw_files.as_frame(one_trial()), target)
    assert list(tmp_path.iterdir()) == []
