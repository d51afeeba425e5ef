"""Verdicts: only whole intervals of verified trials decide, and what is missing is said."""

from __future__ import annotations

import re

import pytest
from claim_data import LISTED, both, cell, check, frame, own

from coldprefix.claims import listed
from coldprefix.claims.table import check_all


@pytest.mark.parametrize("name", [entry["id"] for entry in LISTED])
def test_without_a_measurement_no_claim_is_decided_and_the_finding_says_what_is_missing(name: str) -> None:
    found = check(name, frame())
    assert found["verdict"] == "not decided" and found["effect"] is None
    assert re.match("Missing: .*(was not|libraries of|no valid trial|not run)", found["finding"])
    assert found["rows"] == [] and found["n"] == 0


def test_rejected_trials_and_the_burn_in_are_not_used() -> None:
    bad = cell("phase1", "main", "A512_B256", "miss", ttft_ms=31.0, rejection="reused 256 tokens, should be 0")
    bad += cell("phase1", "main", "A512_B256", "miss", ttft_ms=31.0, burn_in=True)
    measured = [both("phase1", 30.0, 320.0), both("phase2", 30.0, 320.0), bad]
    assert check("C5", frame(*measured))["effect"] == pytest.approx(100 * (320 / 30 - 1))
    only_bad = check("C5", frame(cell("phase1", "main", "A512_B256", "hit", ttft_ms=30.0), bad))
    assert only_bad["verdict"] == "not decided" and "has 0 usable trials of 6" in only_bad["finding"]


def test_two_trials_decide_nothing() -> None:
    few = frame(*(cell(p, "main", "A512_B256", s, n=2, ttft_ms=30.0) for p in ("phase1", "phase2") for s in ("hit", "miss")))
    found = check("C5", few)
    assert found["verdict"] == "not decided" and "an interval needs 3" in found["finding"]


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
