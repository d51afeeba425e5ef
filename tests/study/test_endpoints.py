"""Endpoints in the configuration: each is a phase by its own name, with a model of that name, and nothing of it is set up."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Values, with_values

from coldprefix.engines.contract import load
from coldprefix.engines.endpoint.session import BLOCK, Asked
from coldprefix.errors import ColdprefixError
from coldprefix.study.checks import parse
from coldprefix.study.plan import plan_of

PROD = {"url": "http://127.0.0.1:8080", "api_key_env": "PROD_KEY"}


def with_prod(values: Values, **changes: Any) -> Values:
    return with_values(values, {"endpoints": {"prod": PROD}, "phases": ["prod"], "experiments": ["main"], **changes})


def test_an_endpoint_is_a_phase_of_which_nothing_is_set_up(values: Values) -> None:
    plan = plan_of(parse(with_prod(values)))
    job = plan.jobs["prod/A512_B256/hit"]
    assert (job.engine, job.interface, job.environment, job.accelerator, job.threads) == ("endpoint", "http", "driver", "unknown", 0)
    assert job.settings["url"] == PROD["url"] and job.settings["api_key_env"] == "PROD_KEY"
    assert job.model.source == "endpoint" and [kind.state for kind in job.kinds] == ["hit", "miss", "cold"]
    assert plan.phases == ["prod"] and plan.setup_records() == [] and list(plan.preflights) == ["prod"]


def test_it_is_measured_beside_the_studys_own(values: Values) -> None:
    plan = plan_of(parse(with_prod(values, phases="phase3b,prod", **{"sweeps.depth.phases": ["prod"], "experiments": ["main", "depth"]})))
    assert plan.phases == ["phase3b", "prod"]
    assert {job.engine for job in plan.jobs.values() if job.sweep == "depth"} == {"endpoint"}


def test_another_server_is_another_job_and_another_time_out_is_not(values: Values) -> None:
    def digest(**entry: Any) -> str:
        return plan_of(parse(with_prod(values, endpoints={"prod": {**PROD, **entry}}))).jobs["prod/A512_B256/hit"].digest

    assert digest() == digest() != digest(url="http://127.0.0.1:8081")
    assert digest(model="one") != digest(model="other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phases": ["prood"]}, r"phases.0: there is no phase 'prood' \(did you mean 'prod'\?\); the phases are phase1, .*, prod"),
        ({"endpoints": {"phase1": PROD}}, "endpoints.phase1: this is the name of a phase"),
        ({"endpoints": {"gpt2": PROD}, "phases": ["gpt2"]}, "endpoints.gpt2: that is the name of a model"),
        ({"endpoints": {"prod": {}}}, "endpoints.prod.url: this key is missing"),
        ({"endpoints": {"prod": {**PROD, "reset": True}}}, "endpoints.prod.reset: there is no such key"),
        ({"endpoints": {"prod": {"url": "https://user:sk-1@host"}}}, "endpoints.prod.url: the URL must hold no user, key"),
        ({"endpoints": {"prod": {**PROD, "api_key_env": "sk-1"}}}, "endpoints.prod.api_key_env"),
        ({"endpoints": {"a b": PROD}}, "endpoints"),
        ({"configurations": ["A900_B900"]}, r"do not fit the 1024 tokens of prod \(1024 positions of prod\)"),
        ({"phase_models": {"phase1": "prod"}, "phases": ["phase1"]}, "phase1 runs vLLM, which loads safetensors, and prod has none"),
    ],
)
def test_what_cannot_work_is_said(values: Values, changes: Values, message: str) -> None:
    with pytest.raises(ColdprefixError, match=message):
        parse(with_prod(values, **changes))


def test_where_no_rule_is_known_reuse_is_held_against_what_was_sent() -> None:
    memory = load("endpoint").memory({}, "http")
    assert isinstance(memory, Asked)
    prompt = list(range(1000))
    assert memory.ask(prompt, 1) == (0, 0)  # nothing was sent before: a reuse is one that was not meant
    assert memory.ask([*prompt, 5000], 1) == (1000 - BLOCK, 1000)  # an append must reuse all but a block
    assert memory.ask([*prompt[:500], 6000], 1) == (0, 500)  # what an edit leaves is a result
    assert memory.ask([7000, *prompt], 1) == (0, 0)
    short = memory.ask([8000] * 8, 1)
    assert short == (0, 0) and memory.ask([*[8000] * 8, 1], 1) == (1, 8)  # a hit that reuses nothing is none
