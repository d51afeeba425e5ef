"""The program that tests the claims: it writes a table and a page, and prints the verdicts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
from claim_data import LISTED, REFUSAL, frame, interfaces, record
from conftest import ROOT

from coldprefix.claims.table import CLAIMS
from coldprefix.data.parquet import write_table
from coldprefix.data.raw import sealed
from coldprefix.data.tables import schema


def run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "workflow/scripts/check_claims.py"), "--claims", str(ROOT / "claims.yaml")]
    command += ["--trials", str(folder / "trials.parquet"), "--provenance", str(folder / "p.json")]
    command += ["--out", str(folder / "out/claims.parquet"), "--markdown", str(folder / "out/claims.md"), *more]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_program_writes_a_table_and_a_page_and_prints_the_verdicts(tmp_path: Path) -> None:
    write_table(interfaces(370.0, 360.0, 20.0), tmp_path / "trials.parquet")
    (tmp_path / "p.json").write_text(json.dumps([sealed(record("phase3a"))]))
    (tmp_path / "converter.json").write_text(json.dumps(REFUSAL | {"gguf_written": False}))
    done = run(tmp_path, "--converter", str(tmp_path / "converter.json"))
    assert done.returncode == 0, done.stderr
    found = pl.read_parquet(tmp_path / "out/claims.parquet")
    assert found.schema == schema(CLAIMS) and found["id"].to_list() == [entry["id"] for entry in LISTED]
    assert found["figure"].to_list() == [entry.get("figure") for entry in LISTED]
    assert re.search(r"^C1 +refuted +1 \[1, 1\] exit code", done.stdout, re.M) and re.search(r"^C5 +not decided +- ", done.stdout, re.M)
    page = (tmp_path / "out/claims.md").read_text()
    assert "## C1: refuted" in page and all(row["threshold_reason"] in page for row in found.iter_rows(named=True))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["claims.md", "claims.parquet", "claims.parquet.sha256"]
    without = run(tmp_path, "--converter", str(tmp_path / "absent.json"))
    assert without.returncode == 0 and re.search(r"^C1 +not decided", without.stdout, re.M)


def test_the_program_refuses_a_table_that_is_not_of_trials_and_a_record_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps([sealed(record("phase3a"))]))
    write_table(frame().drop("ttft_ms"), tmp_path / "trials.parquet")
    assert "the columns are not those" in run(tmp_path).stderr
    write_table(frame(), tmp_path / "trials.parquet")
    (tmp_path / "converter.json").write_text("{}")
    done = run(tmp_path, "--converter", str(tmp_path / "converter.json"))
    assert done.returncode == 1 and "is no record of the converter's run" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
