"""Raw data of several machines put together: known values, and one message for what cannot be."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT
from null_engine import NullSession
from raw_data import FAST, write_cell

from coldprefix.analysis.comparable import check_comparable
from coldprefix.analysis.merge import MERGED, merge
from coldprefix.data import tables
from coldprefix.data.raw import read_record, sealed
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job
from coldprefix.measure import protocol

A, B, C = ("a" * 16, "b" * 16, "c" * 16)
MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """A folder of results of one machine, whose null engine takes so long; each cell with its partner."""

    def make(name: str, machine: str, ttft_ms: float = 10.0, changes: dict[str, object] | None = None, states: str = "hit miss") -> Path:
        monkeypatch.setattr(protocol, "machine", lambda: machine)
        for state in states.split():
            job = make_job("phase3a", state, FAST | {"partners": ["hit", "miss"]} | (changes or {}))
            session = NullSession("slot", ttft_ms=ttft_ms, process=f"{name} {state}")
            write_cell(tmp_path / name / "raw", job, session, machine=machine, cpu="the same CPU")
        return tmp_path / name

    return make


def values(out: Path, metric: str, state: str) -> dict[str | None, dict[str, object]]:
    rows = pl.read_parquet(out / "summary.parquet").filter(metric=metric, state=state).to_dicts()
    return {row["machine"]: row for row in rows}


def test_a_run_alone_comes_out_as_its_own_aggregation_does(make_run: MakeRun, tmp_path: Path) -> None:
    from coldprefix.analysis.aggregate import aggregate

    one = make_run("one", A)
    planned = json.loads((one / "plan.json").read_text())["cells"]
    aggregate(one / "raw", planned, tmp_path / "own", requests=False)
    merge([one], tmp_path / "out")
    own, found = (pl.read_parquet(tmp_path / name / "summary.parquet") for name in ("own", "out"))
    keys = ["configuration", "state", "metric"]
    joint = found.filter(pl.col("machine").is_null()).select(list(tables.SUMMARY))
    assert joint.sort(keys).equals(own.sort(keys)) and joint.height
    assert found.schema == tables.schema(MERGED)


def test_three_machines_are_told_apart_and_together(make_run: MakeRun, tmp_path: Path) -> None:
    """Of the same make and name; each its own row, and a mean of equal weights."""
    text = merge([make_run("one", A, 10.0), make_run("two", B, 20.0), make_run("three", C, 40.0)], tmp_path / "out")
    found = values(tmp_path / "out", "ttft_ms", "miss")
    assert {machine: row["median"] for machine, row in found.items()} == pytest.approx({None: 20.0, A: 10.0, B: 20.0, C: 40.0})
    joint = found[None]
    assert joint["machines"] == 3 and joint["processes"] == 6 and joint["ci_low"] == pytest.approx(20.0)
    assert joint["like_low"] is not None and float(str(joint["like_low"])) < 10 < 40 < float(str(joint["like_high"]))
    assert found[A]["machines"] == 1 and found[A]["like_low"] is None
    effect = values(tmp_path / "out", "ttft_degradation_pct", "miss")
    assert effect[None]["median"] == pytest.approx(0.0, abs=1e-9) and effect[None]["machines"] == 3
    assert "all 3" in text and f"M2 {B}: the same CPU" in text
    assert len(json.loads((tmp_path / "out/provenance.json").read_text())) == 6


def test_a_cell_that_one_machine_lacks_says_so(make_run: MakeRun, tmp_path: Path) -> None:
    text = merge([make_run("one", A), make_run("two", B, 20.0, states="cold")], tmp_path / "out")
    cold = values(tmp_path / "out", "ttft_ms", "cold")
    assert set(cold) == {None, B} and cold[None]["machines"] == 1 and "1 of 2" in text


def test_what_is_no_study_of_several_machines_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    one, out = make_run("one", A), tmp_path / "out"
    copy = shutil.copytree(one, tmp_path / "copy")
    other = make_run("other", B, changes={"settle_ms": 7})
    with pytest.raises(ColdprefixError, match=r"hit was measured by different jobs: protocol\.settle_ms is 0 in .*one.* and 7 in .*other"):
        merge([one, other], out)
    with pytest.raises(ColdprefixError, match="hold the same measurement; name each run once"):
        merge([one, copy], out)
    with pytest.raises(ColdprefixError, match="is named twice"):
        merge([one, one / ".." / "one"], out)
    with pytest.raises(ColdprefixError, match="holds no measured cell; RESULTS names"):
        merge([one, tmp_path / "nothing"], out)
    old = next((copy / "raw").rglob("hit/provenance.json"))
    record = json.loads(old.read_text())
    old.write_text(json.dumps(sealed(record | {"host": {key: v for key, v in record["host"].items() if key != "machine"}})))
    with pytest.raises(ColdprefixError, match="does not say on which machine it was measured"):
        merge([copy], out)
    old.write_text(json.dumps(sealed(record | {"schema_version": 6})))
    with pytest.raises(ColdprefixError, match="has the schema version 6, this coldprefix reads 7"):
        merge([copy], out)
    assert not out.exists()


def test_threads_that_auto_chose_may_differ_between_machines_and_not_on_one(make_run: MakeRun, tmp_path: Path) -> None:
    one, two = make_run("one", A, changes={"threads": 2}), make_run("two", B, changes={"threads": 4})
    merge([one, two], tmp_path / "out")
    again = make_run("again", A, changes={"threads": 4})
    with pytest.raises(ColdprefixError, match="different jobs: threads is 2"):
        merge([one, again], tmp_path / "out")


def test_hit_and_miss_on_two_machines_are_refused_unless_the_host_may_vary(make_run: MakeRun) -> None:
    folder = make_run("one", A, states="hit")
    make_run("one", B, states="miss")
    records = [
        read_record(file.parent, file.parent.relative_to(folder / "raw").as_posix()) for file in (folder / "raw").rglob("provenance.json")
    ]
    with pytest.raises(
        ColdprefixError, match=r"cells of 2 machines cannot be compared: .* was measured on the machine .*, or write vary: host"
    ):
        check_comparable(records)
    check_comparable(records, ["host"])


def test_make_merge_is_one_message_or_a_table(make_run: MakeRun, tmp_path: Path) -> None:
    one, two = make_run("one", A), make_run("two", B, 20.0)

    def make(results: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "-s", "merge", f"RESULTS={results}", f"OUT={tmp_path / 'out'}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = make(f"{one},{two}")
    assert done.returncode == 0 and "all 2" in done.stdout and (tmp_path / "out/summary.txt").read_text() in done.stdout
    done = make(f"{one},{one}")
    assert done.returncode == 2 and "is named twice" in done.stderr and "Traceback" not in done.stderr
    done = make("")
    assert done.returncode == 2 and "make merge RESULTS=a/results,b/results" in done.stderr
