"""A cell that was measured by another job than the configuration asks for now is refused, with its name and what differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import Values
from null_engine import NullSession
from raw_data import FAST, run_aggregate, write_cell

from coldprefix.analysis.comparable import check_comparable, check_planned, check_same_prompts
from coldprefix.data.raw import as_frame
from coldprefix.data.tables import REQUESTS
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job
from coldprefix.measure import protocol

MakeJob = Callable[..., Job]
HIT, MISS = "phase3a/A512_B256/hit", "phase3a/A512_B256/miss"


def told(job: Job) -> dict[str, Any]:
    """As a record or a plan holds it."""
    return job.model_dump(mode="json")


def record(job: Job, **changes: Any) -> dict[str, Any]:
    host = {"cpu": "a CPU", "usable_cpus": 2, "gpus": []} | changes.pop("host", {})
    return {"job": told(job), "host": host, "in_force": {"slots": 1, "command": [job.state]} | changes}


@pytest.fixture
def planned(make_job: MakeJob) -> dict[str, dict[str, Any]]:
    return {cell: told(make_job("phase3a", cell.rpartition("/")[2])) for cell in (HIT, MISS)}


def test_cells_that_were_measured_as_planned_are_taken(make_job: MakeJob, planned: dict[str, dict[str, Any]]) -> None:
    check_planned({cell: {"job": job} for cell, job in planned.items()}, planned)
    check_planned({HIT: {"job": planned[HIT]}}, planned)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settle_ms": 500}, r"protocol\.settle_ms 500, the configuration asks for 5 now\. Measure it anew"),
        ({"trials": 7}, r"protocol\.trials 7, the configuration asks for 4 now"),
        ({"llamacpp.batch_tokens": 512}, r"settings\.batch_tokens 512, the configuration asks for 2048 now"),
        ({"question_tokens": 9}, r"kinds\.0\.lengths\.Q 9, the configuration asks for 24 now"),
        (
            {"model": "gpt2-tiny"},
            r"model\.name 'gpt2-tiny', the configuration asks for 'gpt2-standin' now \(1 more differ: model\.identity\)",
        ),
        ({"settle_ms": 500, "seed": 1}, r"protocol\.settle_ms 500, .* now \(1 more differ: protocol\.seed\)"),
    ],
)
def test_what_differs_is_named_with_the_cell_and_both_values(
    make_job: MakeJob, planned: dict[str, dict[str, Any]], changes: Values, message: str
) -> None:
    records = {HIT: {"job": planned[HIT]}, MISS: {"job": told(make_job("phase3a", "miss", changes))}}
    with pytest.raises(ColdprefixError, match=f"^{MISS} was measured with {message}") as caught:
        check_planned(records, planned)
    assert f"delete results/raw/{MISS} and run snakemake again" in str(caught.value)


def test_other_code_is_another_job(make_job: MakeJob, planned: dict[str, dict[str, Any]]) -> None:
    records = {HIT: {"job": planned[HIT] | {"code": "0" * 32}}}
    with pytest.raises(
        ColdprefixError, match=f"^{HIT} was measured with code '0{{32}}', the configuration asks for '{planned[HIT]['code']}'"
    ):
        check_planned(records, planned)


def test_a_key_that_one_of_them_has_not_is_a_difference(make_job: MakeJob, planned: dict[str, dict[str, Any]]) -> None:
    """As of a setting that a newer version knows."""
    settings = {key: value for key, value in planned[HIT]["settings"].items() if key != "slots"}
    for measured, asked in ((planned[HIT] | {"settings": settings}, planned[HIT]), (planned[HIT], planned[HIT] | {"settings": settings})):
        with pytest.raises(ColdprefixError, match=r"settings\.slots"):
            check_planned({HIT: {"job": measured}}, {HIT: asked})


def test_a_cell_that_nobody_asks_for_is_refused(planned: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(ColdprefixError, match=f"^the configuration does not ask for the cell {MISS}; run snakemake again$"):
        check_planned({cell: {"job": job} for cell, job in planned.items()}, {HIT: planned[HIT]})


def test_patience_is_no_difference(make_job: MakeJob, planned: dict[str, dict[str, Any]]) -> None:
    """Raising it after a time-out must not measure every cell again."""
    patient = told(make_job("phase3a", "hit", {"timeout_s": 999, "start_timeout_s": 999}))
    assert patient != planned[HIT]
    check_planned({HIT: {"job": patient}}, planned)


def test_the_program_refuses_it_and_writes_nothing(make_job: MakeJob, tmp_path: Path) -> None:
    """As after `snakemake --touch`: the cell looks up to date."""
    write_cell(tmp_path / "raw", make_job("phase3a", "hit", FAST), NullSession("slot"))
    plan = tmp_path / "plan.json"
    plan.write_text(plan.read_text().replace('"settle_ms": 0', '"settle_ms": 7'))
    done = run_aggregate(tmp_path / "raw", tmp_path / "out")
    assert done.returncode == 1 and f"{HIT} was measured with protocol.settle_ms 0, the configuration asks for 7 now" in done.stderr
    assert not list((tmp_path / "out").iterdir()) and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"host": {"cpu": "another"}}, rf"host\.cpu is 'a CPU' for {HIT} and 'another' for {MISS}.*--forcerun phase3a"),
        ({"host": {"gpus": [{"name": "H100"}]}}, rf"host\.gpu_names is \[\] for {HIT} and \['H100'\]"),
        ({"slots": 2}, "in_force_settings is"),
    ],
)
def test_cells_of_different_conditions_are_not_put_together(make_job: MakeJob, change: dict[str, Any], message: str) -> None:
    one, other = make_job("phase3a", "hit"), make_job("phase3a", "miss")
    check_comparable([record(one), record(other)])
    with pytest.raises(ColdprefixError, match=message):
        check_comparable([record(one), record(other, **change)])


def test_the_interfaces_of_an_engine_must_agree_within_a_variant(make_job: MakeJob) -> None:
    http, python = make_job("phase3a", "hit"), make_job("phase3b", "hit")
    check_comparable([record(http), record(python)])
    with pytest.raises(ColdprefixError, match=r"(?s)the two interfaces of llamacpp run with different settings.*slots"):
        check_comparable([record(http), record(python, slots=2)])


def test_backends_that_were_sent_other_tokens_are_named() -> None:
    def row(phase: str, tokens: str) -> dict[str, Any]:
        keys = {
            "model": "m",
            "variant": "main",
            "configuration": "A1_B1",
            "state": "hit",
            "own": True,
            "process": 0,
            "trial": 3,
            "step": "query",
        }
        return dict.fromkeys(REQUESTS) | keys | {"phase": phase, "prompt_hash": tokens}

    check_same_prompts(as_frame([row("phase1", "x"), row("phase2", "x")]))
    with pytest.raises(ColdprefixError, match=r"the phases \['phase1', 'phase2'\] were not sent the same tokens \(.*trial 3, step query\)"):
        check_same_prompts(as_frame([row("phase1", "x"), row("phase2", "y")]))


def test_the_other_prompts_of_a_trial_are_compared_in_their_order(make_job: MakeJob) -> None:
    job = {"settle_ms": 0, "trials": 1, "burn_in": 0, "processes": 1, "partners": []}
    one, other = (
        as_frame(protocol.run_process(NullSession("slot"), make_job(phase, "foreign-300", job), 0, 0, lambda _: None))
        for phase in ("phase3a", "phase3b")
    )
    check_same_prompts(pl.concat([one, other]))
    last = (pl.col("step") == "foreign") & (pl.col("order") == 3)
    changed = other.with_columns(prompt_hash=pl.when(last).then(pl.lit("another")).otherwise("prompt_hash"))
    with pytest.raises(ColdprefixError, match=r"not sent the same tokens .*step foreign"):
        check_same_prompts(pl.concat([one, changed]))
