"""Cells that the configuration does not ask for now are put into no table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from null_engine import NullSession
from raw_data import FAST, run_aggregate, write_cell

from coldprefix.analysis.comparable import check_planned
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job

MakeJob = Callable[..., Job]
CELL = "phase3a/A512_B256/hit"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trials": 12}, "protocol.trials 10, the configuration asks for 12 now"),
        ({"trials": 12, "seed": 5}, r"\(1 more differ: protocol.seed\)"),
        ({"llamacpp.ubatch_tokens": 256}, "settings.ubatch_tokens 512, the configuration asks for 256 now"),
        ({"question_tokens": 9}, "lengths.Q 24, the configuration asks for 9 now"),
        ({"model": "gpt2-tiny"}, "model.name 'gpt2-standin', the configuration asks for 'gpt2-tiny' now"),
    ],
)
def test_another_job_is_refused_with_its_cell_and_key(make_job: MakeJob, changes: dict[str, Any], told: str) -> None:
    records = {CELL: {"job": make_job("phase3a", "hit", {"trials": 10}).model_dump(mode="json")}}
    planned = {CELL: make_job("phase3a", "hit", {"trials": 10, **changes}).model_dump(mode="json")}
    with pytest.raises(ColdprefixError, match=rf"^{CELL} was measured with .*{told}"):
        check_planned(records, planned)


def test_another_code_is_another_job(make_job: MakeJob) -> None:
    job = make_job("phase3a", "hit").model_dump(mode="json")
    with pytest.raises(ColdprefixError, match=rf"{CELL} was measured with code 'old'"):
        check_planned({CELL: {"job": job | {"code": "old"}}}, {CELL: job})


def test_patience_decides_no_number(make_job: MakeJob) -> None:
    records = {CELL: {"job": make_job("phase3a", "hit", {"timeout_s": 5}).model_dump(mode="json")}}
    check_planned(records, {CELL: make_job("phase3a", "hit", {"start_timeout_s": 9}).model_dump(mode="json")})


def test_a_cell_that_nobody_asks_for_is_refused(make_job: MakeJob) -> None:
    with pytest.raises(ColdprefixError, match=f"does not ask for the cell {CELL}"):
        check_planned({CELL: {"job": make_job("phase3a", "hit").model_dump(mode="json")}}, {})


def test_the_program_refuses_it_and_writes_nothing(make_job: MakeJob, tmp_path: Path) -> None:
    write_cell(tmp_path / "raw", make_job("phase3a", "hit", FAST), NullSession("slot"))
    plan = tmp_path / "plan.json"
    plan.write_text(plan.read_text().replace('"settle_ms": 0', '"settle_ms": 7'))
    done = run_aggregate(tmp_path / "raw", tmp_path / "out")
    assert done.returncode == 1 and f"{CELL} was measured with protocol.settle_ms 0, the configuration asks for 7 now" in done.stderr
    assert not list((tmp_path / "out").iterdir()) and "Traceback" not in done.stderr
