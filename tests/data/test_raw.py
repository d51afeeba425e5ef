"""Raw files and the program that puts them together: what is damaged, edited, mixed up or another's is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import ROOT
from null_engine import NullSession
from raw_data import FAST, one_trial, run_aggregate, write_cell

from coldprefix.data import parquet, tables
from coldprefix.data import raw as raw_files
from coldprefix.data.parquet import write_parquet
from coldprefix.data.raw import as_frame
from coldprefix.errors import ColdprefixError
from coldprefix.files import partial_of, sha256_of
from coldprefix.job import Job

MakeJob = Callable[..., Job]
CELLS = ("phase3a/A512_B256/hit", "phase3a/A512_B256/miss")


@pytest.fixture
def raw(tmp_path: Path, make_job: MakeJob) -> Path:
    for state in ("hit", "miss"):
        write_cell(tmp_path / "raw", make_job("phase3a", state, FAST), NullSession("slot"))
    return tmp_path / "raw"


def test_the_program_writes_all_tables(raw: Path, tmp_path: Path) -> None:
    done = run_aggregate(raw, tmp_path / "out", *CELLS)
    assert done.returncode == 0, done.stderr
    for name, columns in (("requests", tables.REQUESTS), ("trials", tables.TRIALS), ("summary", tables.SUMMARY)):
        tables.validate(pl.read_parquet(tmp_path / "out" / f"{name}.parquet"), columns, name)
    assert pl.read_parquet(tmp_path / "out" / "requests.parquet").height == 2 * 4 * 4
    assert "phase3a  main     A512_B256" in done.stdout and done.stdout.strip() == (tmp_path / "out" / "summary.txt").read_text().strip()


def spoil(path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    write_parquet(change(pl.read_parquet(path)), path)


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
    assert (
        done.returncode == 1
        and f"provenance.json has {told}, this coldprefix reads {tables.SCHEMA_VERSION}. Use the coldprefix that wrote it" in done.stderr
    )


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
        write_parquet(as_frame(one_trial()), target)
    assert list(tmp_path.iterdir()) == []
