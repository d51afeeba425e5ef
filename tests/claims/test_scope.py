"""Scope: every verdict says what it was measured with, and refutes nothing about hardware that was not measured."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from claim_data import GTX, REFUSAL, Rows, both, cell, check, frame, own, record

from coldprefix.claims import listed
from coldprefix.claims.page import as_markdown, as_text, short_scope
from coldprefix.claims.table import check_all

VLLM = ("phase1", "phase2")
COSTLY = frame(*(both(p, 30.0, 320.0) for p in VLLM))
CHEAP = frame(*(both(p, 30.0, 30.5) for p in VLLM))
H100 = {"name": "NVIDIA H100 80GB HBM3"}


def records(gpu: dict[str, Any] | None) -> Rows:
    settings: dict[str, Any] = {"enforce_eager": True, "prefix_caching": True, "host_cache_mib": None}
    return [record(p, gpu=gpu, version="0.25.1", libraries=None, **settings) for p in VLLM]


@pytest.mark.parametrize("gpu", [None, H100])
def test_other_hardware_contradicts_but_does_not_refute(gpu: dict[str, Any] | None) -> None:
    found = check("C5", COSTLY, records(gpu))
    assert found["verdict"] == "contradicted here" and found["claimed_of"] == "GTX 1650"
    assert found["finding"].endswith("; the original's hardware (GTX 1650) was not measured.")


def test_its_own_hardware_refutes() -> None:
    found = check("C5", COSTLY, records(GTX))
    assert found["verdict"] == "refuted" and "was not measured" not in found["finding"]


def test_one_cell_from_elsewhere_is_enough_to_refute_nothing() -> None:
    assert check("C5", COSTLY, [records(GTX)[0], records(None)[1]])["verdict"] == "contradicted here"
    assert check("C5", COSTLY, [])["verdict"] == "contradicted here", "what is not known was not measured there"


def test_what_agrees_elsewhere_says_that_it_was_elsewhere() -> None:
    found = check("C5", CHEAP, records(H100))
    assert found["verdict"] == "supported" and "the original's hardware (GTX 1650) was not measured" in found["finding"]


def test_a_claim_without_a_scope_is_about_any_machine() -> None:
    entry = own(test="absorbs_invalidation", parameters={"phases": VLLM}, threshold={"value": 10, "unit": "%", "reason": "A tenth of it."})
    found = check_all(listed.parse({"claims": [entry]}), COSTLY, records(None)).row(0, named=True)
    assert found["verdict"] == "refuted" and found["claimed_of"] is None


def test_the_scope_is_that_of_the_cells_used() -> None:
    other = record("phase3a", model="opt", host_cache_mib=8192)
    found = check("C5", COSTLY, [*records(H100), other])
    assert found["hardware"] == "NVIDIA H100 80GB HBM3 (on AMD EPYC)" and found["weights"] == "gpt2-standin (random weights)"
    assert found["engines"] == "vLLM http 0.25.1; python 0.25.1 (build 53ff4ec8)"
    assert found["flags"] == "vLLM: enforce_eager True, prefix_caching True, fresh prompts" and found["commit"] == "abc1234+"
    assert check("C6b", COSTLY, [other])["hardware"] is None


def test_a_partner_s_trials_have_the_scope_of_the_job_that_measured_them() -> None:
    """The hits were measured by the job of the misses alone."""
    claims = listed.parse(
        {"claims": [own(parameters__over__state="hit", parameters__under__state="hit", parameters__under__phase="phase3b")]}
    )
    rows = both("phase3b", 30.0, 320.0)
    found = check_all(claims, frame(rows), [record("phase3b", gpu=H100)]).row(0, named=True)
    assert found["hardware"] == "NVIDIA H100 80GB HBM3 (on AMD EPYC)"


def test_several_values_of_a_flag_are_all_told() -> None:
    repeated: dict[str, Any] = {"content": "repeated", "query_cached_tokens": 0}
    trials = frame(
        *(cell(p, v, "A512_B256", "miss", ttft_ms=9.0, **repeated) for p in ("phase3a", "phase3b") for v in ("main", "confound/repeated"))
    )
    tiers = [record(p, v, host_cache_mib=mib) for p in ("phase3a", "phase3b") for v, mib in (("main", 0), ("confound/repeated", 8192))]
    assert "llama.cpp: host_cache_mib 0 or 8192" in check("C4", trials, tiers)["flags"]


def test_the_converter_s_refusal_names_the_engine_and_no_machine() -> None:
    found = check("C1", frame(), [record("phase3a")], REFUSAL)
    assert found["verdict"] == "refuted" and found["engines"] == "llama.cpp http b1-0c1e570 (build 53ff4ec8)" and found["hardware"] is None


def test_page_and_terminal_show_the_scope() -> None:
    claims = listed.load(listed_path())
    table = check_all(claims, COSTLY, records(H100))
    short = "NVIDIA H100 80GB HBM3 (on AMD EPYC); vLLM http 0.25.1; python 0.25.1"
    row = table.filter(pl.col("id") == "C5").row(0, named=True)
    assert short_scope(row) == short and short in as_text(table)
    page = as_markdown(table)
    assert f"| {short} |" in page and "- Claimed of: GTX 1650" in page and "- Scope: hardware: NVIDIA H100" in page
    assert "written before this run" in page and "git diff abc1234 -- claims.yaml" in page and "## C5: contradicted here" in page


def listed_path() -> Any:
    from conftest import ROOT

    return ROOT / "claims.yaml"
