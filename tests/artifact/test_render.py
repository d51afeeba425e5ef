"""The shipped data: they give what was shipped with them, and whatever was changed is a FAIL that says what."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from conftest import ROOT

from coldprefix.artifact.reference import Reference, keep, named, references
from coldprefix.artifact.render import Rendered, make, render, text
from coldprefix.data.raw import read_record, write_cell
from coldprefix.errors import ColdprefixError
from coldprefix.files import write_json

CELL = "phase3b/A512_B256/miss"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that is made again in seconds: one phase of the smallest reference."""
    folder = tmp_path_factory.mktemp("small")
    whole = named("kick")
    plan = whole.plan
    kept = [cell for cell in plan["cells"] if cell.startswith("phase3b/A512")]
    plan["cells"] = {cell: plan["cells"][cell] for cell in kept}
    plan["experiments"] = {"main": kept}
    (folder / "expected").mkdir()
    shutil.copytree(whole.results, folder / "results")
    write_json(folder / "results" / "plan.json", plan)
    assert make(Reference(folder), folder) == []
    return folder


@pytest.fixture
def spare(run: Path, tmp_path: Path) -> Reference:
    """A reference, to spoil."""
    return keep(run, tmp_path / "small")


def again(reference: Reference, out: Path) -> Rendered:
    found = render(reference, out)
    told = text(reference, found)
    assert told.rstrip().endswith("PASS" if found.passed else "FAIL")
    return found


def test_every_shipped_reference_is_as_it_was_shipped() -> None:
    """Whole, sealed, and of this schema; `make render` makes all of it again."""
    shipped = references()
    assert "kick" in {reference.name for reference in shipped}
    for reference in shipped:
        assert reference.check() == []
        for cell in reference.plan["cells"]:
            read_record(reference.results / "raw" / cell, cell)


def test_what_was_shipped_comes_out_again(spare: Reference, tmp_path: Path) -> None:
    found = again(spare, tmp_path / "out")
    assert found.passed and found.equal > 8, text(spare, found)
    assert (tmp_path / "out" / "results" / "report.html").exists()
    assert (tmp_path / "out" / "figures" / "phase3b_panels.pdf").exists()


def test_an_edited_raw_row_fails_even_if_it_is_sealed_again(spare: Reference, tmp_path: Path) -> None:
    folder = spare.results / "raw" / CELL
    record = read_record(folder, CELL)
    rows = pl.read_parquet(folder / "requests.parquet")
    query = (pl.col("step") == "rewarm") & (pl.col("trial") == 0)
    write_cell(folder, rows.with_columns(cached_tokens=pl.when(query).then(pl.lit(700, pl.Int32)).otherwise("cached_tokens")), record)
    found = again(spare, tmp_path / "out")
    assert not found.passed
    assert f"results/raw/{CELL}/requests.parquet is not the file that was shipped" in found.broken[1]
    assert any("claims" in name for name in found.differing)
    assert any(claim.id == "C9d" and claim.passed is False for claim in found.claims), "the claim that these counts decide"


def test_a_removed_cell_fails(spare: Reference, tmp_path: Path) -> None:
    shutil.rmtree(spare.results / "raw" / CELL)
    found = again(spare, tmp_path / "out")
    assert not found.passed and f"results/raw/{CELL}/provenance.json is missing" in found.broken
    assert any("No such file" in line and CELL in line for line in found.failed)
    assert all(claim.passed is False for claim in found.claims)


def test_a_changed_claim_fails(spare: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    written = (ROOT / "claims.yaml").read_text()
    changed = written.replace('statement: "One miss makes', 'statement: "No miss makes', 1)
    assert changed != written
    (checkout / "claims.yaml").write_text(changed)
    monkeypatch.setattr("coldprefix.artifact.render.ROOT", checkout)
    found = again(spare, tmp_path / "out")
    wrong = [claim for claim in found.claims if not claim.passed]
    assert [claim.id for claim in wrong] == ["C9a"] and "statement is 'No miss makes" in wrong[0].reason


def test_a_reference_is_never_overwritten_and_needs_a_finished_run(run: Path, spare: Reference, tmp_path: Path) -> None:
    with pytest.raises(ColdprefixError, match="never overwritten"):
        keep(run, spare.folder)
    unfinished = shutil.copytree(run, tmp_path / "run")
    (unfinished / "results" / "claims.md").unlink()
    with pytest.raises(ColdprefixError, match=r"claims\.md is missing: the run is not finished"):
        keep(unfinished, tmp_path / "other")
    assert not list(tmp_path.glob("*other*"))


def test_an_unknown_reference_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ColdprefixError, match=r"no reference 'h9000'.*kick"):
        named("h9000")
