"""What is refused before jobs are submitted to a cluster, with the command or the value to write instead."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Values, with_values

from coldprefix.errors import ColdprefixError
from coldprefix.study import cluster
from coldprefix.study.checks import parse

FIXED = {"accelerator": "cpu", "threads": 2, "vary": ["host"]}
ANYWHERE = ["--exclusive"]


def check(values: Values, due: set[str], extras: Any = ANYWHERE, **changes: Any) -> None:
    cluster.check_submission(
        parse(with_values(values, FIXED | changes)), due, ["phase3a", "calibration"], extras, ["my study.yaml"], ["vary=host"]
    )


def test_cells_that_are_prepared_may_be_submitted(values: Values) -> None:
    check(values, {"phase3a", "calibration", "aggregate"})
    check(values, {"aggregate"}, [], accelerator="auto", threads="auto", vary=[])  # nothing is submitted


@pytest.mark.parametrize("rule", cluster.SETUP)
def test_what_is_not_prepared_is_named_with_the_command(values: Values, rule: str) -> None:
    command = r"snakemake --workflow-profile profiles/default --configfile 'my study\.yaml' --config vary=host -- prepared$"
    for due in ({"phase3a", rule}, {rule}):
        with pytest.raises(ColdprefixError, match=rf"\({rule} to do\).*{command}"):
            check(values, due)


@pytest.mark.parametrize(("key", "instead"), [("accelerator", "accelerator=cpu or accelerator=cuda"), ("threads", "threads=N")])
def test_auto_is_no_value_for_another_machine(values: Values, key: str, instead: str) -> None:
    with pytest.raises(ColdprefixError, match=f"^{key}: auto would be that of the machine that submits; write {instead}"):
        check(values, {"phase3a", "environment"}, **{key: "auto"})


@pytest.mark.parametrize(
    ("extras", "pinned"),
    [
        (["--exclusive --nodelist=n1"], True),
        (["-w n1 --exclusive"], True),
        (["--nodelist=n1", "--nodelist=n1 --gres=gpu:1"], True),
        (["--exclusive"], False),
        (["--nodelist=n1", "--exclusive"], False),
        (["--nodelist=n1,n2"], False),
        (["--nodelist=n[1-2]"], False),
        (["--nodelist=n1", "--nodelist=n2"], False),
    ],
)
def test_cells_stay_on_one_machine_unless_the_host_may_vary(values: Values, extras: list[str], pinned: bool) -> None:
    check(values, {"phase3a"}, extras)
    if pinned:
        check(values, {"phase3a"}, extras, vary=[])
        return
    with pytest.raises(ColdprefixError, match=r"may land on several machines.*vary=host.*--nodelist=NODE"):
        check(values, {"phase3a"}, extras, vary=[])


def test_advice_on_a_prompt_is_for_one_machine(values: Values) -> None:
    changes = {"layout": "docs/prompt.yaml", "experiments": ["layout"], "vary": "host"}
    with pytest.raises(ColdprefixError, match="the advice is for one machine; leave vary: host out"):
        parse(with_values(values, changes))
