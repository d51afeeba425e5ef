"""Verdicts: only whole intervals of verified trials decide, and what is missing is said."""

from __future__ import annotations

import re

import pytest
from claim_data import LISTED, both, cell, check, frame, own

from coldprefix.analysis.statistics import student
from coldprefix.claims import listed
from coldprefix.claims.effect import inside, measured
from coldprefix.claims.table import check_all
from coldprefix.claims.verdict import Part, verdict_of


@pytest.mark.parametrize("name", [entry["id"] for entry in LISTED if entry["test"] != "original_report"])
def test_without_a_measurement_no_claim_is_decided_and_the_finding_says_what_is_missing(name: str) -> None:
    found = check(name, frame())
    assert found["verdict"] == "not decided" and found["effect"] is None
    assert re.match("Missing: .*(was not|libraries of|no valid trial|not run)", found["finding"])
    assert found["rows"] == [] and found["n"] == 0


def test_rejected_trials_and_the_burn_in_are_not_used() -> None:
    job = "phase1/A512_B256/miss"
    bad = cell("phase1", "main", "A512_B256", "miss", ttft_ms=31.0, job=job, rejection="reused 256 tokens, should be 0")
    bad += cell("phase1", "main", "A512_B256", "miss", ttft_ms=31.0, job=job, burn_in=True)
    measured = [both("phase1", 30.0, 320.0), both("phase2", 30.0, 320.0), bad]
    assert check("C5", frame(*measured))["effect"] == pytest.approx(100 * (320 / 30 - 1), rel=1e-3)
    only_bad = check("C5", frame(cell("phase1", "main", "A512_B256", "hit", ttft_ms=30.0, job=job), bad))
    assert only_bad["verdict"] == "not decided" and "has 0 usable trials of 12" in only_bad["finding"]


@pytest.mark.parametrize(("n", "starts"), [(1, (0.99, 1.0, 1.01)), (20, (1.0, 1.01))])
def test_too_few_trials_or_processes_decide_nothing_but_are_told(n: int, starts: tuple[float, ...]) -> None:
    found = check("C5", frame(*(both(p, 30.0, 320.0, n=n, starts=starts) for p in ("phase1", "phase2"))))
    assert found["verdict"] == "not decided" and found["effect"] == pytest.approx(967, rel=0.02) and found["effect_low"] is None
    assert f"{n * len(starts)} usable trials of {n * len(starts)} with ttft_ms, of {len(starts)} engine processes" in found["finding"]
    assert "an interval needs 6 of 3" in found["finding"]


def test_processes_are_the_unit_and_not_trials() -> None:
    """A thousand trials in three processes whose starts differ by a third say little of the ratio of two cells that were apart."""
    starts = {"phase3a": (1.0, 1.0, 1.0), "phase3b": (0.7, 1.0, 1.4)}
    rows = [cell(p, "main", "A512_B256", "miss", n=300, starts=s, ttft_ms=100.0) for p, s in starts.items()]
    found = check_all(listed.parse({"claims": [own()]}), frame(*rows), []).row(0, named=True)
    assert found["verdict"] == "not decided" and found["effect_low"] < 0.6 and found["effect_high"] > 1.6


def test_what_a_process_does_to_both_partners_cancels() -> None:
    found = check("C5", frame(*(both(p, 30.0, 31.0, starts=(0.6, 1.0, 1.5)) for p in ("phase1", "phase2"))))
    assert found["verdict"] == "supported" and found["effect_high"] < 7
    elsewhere = [cell(p, "main", "A512_B256", "hit", starts=(3.0, 4.0, 5.0), ttft_ms=30.0) for p in ("phase1", "phase2")]
    partners = frame(*(both(p, 30.0, 31.0, starts=(0.6, 1.0, 1.5)) for p in ("phase1", "phase2")), *elsewhere)
    assert check("C5", partners)["effect"] == found["effect"], "hits of other processes say nothing of the ratio in these"
    apart = frame(
        *(cell(p, "main", "A512_B256", s, starts=(0.6, 1.0, 1.5), ttft_ms=30.0) for p in ("phase1", "phase2") for s in ("hit", "miss"))
    )
    assert check("C5", apart)["verdict"] == "not decided"


def test_one_of_many_parts_needs_a_wider_interval_to_refute() -> None:
    """Two cells, one of which leaves the margin at 95 % and not at 97.5 %."""
    p, beyond = ["phase1", "phase2"], both("phase1", 30.0, 34.0)
    alone = own(test="absorbs_invalidation", parameters={"phases": p[:1]}, threshold={"value": 10, "unit": "%", "reason": "A tenth of it."})
    of_two = own(test="absorbs_invalidation", parameters={"phases": p}, threshold={"value": 10, "unit": "%", "reason": "A tenth of it."})
    trials = frame(beyond, both("phase2", 30.0, 30.0))
    verdicts = [check_all(listed.parse({"claims": [entry]}), trials, []).row(0, named=True) for entry in (alone, of_two)]
    assert [row["verdict"] for row in verdicts] == ["refuted", "not decided"]
    assert verdicts[0]["effect_low"] > 10


def test_agreement_of_all_parts_is_not_corrected() -> None:
    """It takes every part, so an error in one alone decides nothing: 95 % each."""
    part = Part("x", inside(-10, 10), measured(lambda c: student([8.0, 8.5, 7.5], 6, confidence=c)))
    assert part.judged() is True and part.judged(0.99) is None
    assert verdict_of([part] * 5, every=True) == "supported" and verdict_of([part] * 5, every=False) == "not decided"
    assert verdict_of([part], every=False) == "supported"


@pytest.mark.parametrize(
    ("relation", "threshold", "b", "verdict"),
    [
        ("within", 1.1, 104.0, "supported"),
        ("within", 1.1, 80.0, "refuted"),
        ("within", 1.1, 109.5, "not decided"),
        ("at_least", 2.0, 300.0, "supported"),
        ("at_least", 2.0, 100.0, "refuted"),
        ("at_most", 0.5, 20.0, "supported"),
        ("at_most", 0.5, 100.0, "refuted"),
    ],
)
def test_a_user_s_ratio_is_decided_by_the_whole_interval(relation: str, threshold: float, b: float, verdict: str) -> None:
    claims = listed.parse({"claims": [own(parameters__relation=relation, threshold__value=threshold)]})
    values = {"phase3a": 100.0, "phase3b": b}
    row = check_all(claims, frame(*(cell(p, "main", "A512_B256", "miss", ttft_ms=v) for p, v in values.items())), []).row(0, named=True)
    assert row["verdict"] == verdict and row["effect"] == pytest.approx(b / 100) and row["original_status"] == "not among its claims"
    assert row["rows"] == ["phase3b/main/A512_B256/miss", "phase3a/main/A512_B256/miss"]
