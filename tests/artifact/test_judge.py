"""An evaluator's numbers beside the shipped ones: what must be equal, and what FAIL says."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from coldprefix.artifact import judge
from coldprefix.claims import listed
from coldprefix.claims.table import CLAIMS
from coldprefix.data import tables

ROWS: list[dict[str, Any]] = [
    {"id": "COUNT", "verdict": "supported", "effect": 100.0, "effect_low": 100.0, "effect_high": 100.0, "unit": "%", "threshold": 90.0},
    {"id": "TIME", "verdict": "refuted", "effect": 1.5, "effect_low": 1.2, "effect_high": 1.9, "unit": "x", "threshold": 2.0},
    {"id": "OPEN", "verdict": "not decided", "unit": "x", "threshold": 2.0},
]


@pytest.fixture
def claims() -> list[listed.Claim]:
    cell = {"configuration": "A512_B256", "state": "miss", "phase": "phase3a"}
    share = {"phases": ["phase3a"], "configurations": ["A512_B256"], "state": "miss", "step": "query", "relation": "at_least"}
    ratio = {"metric": "ttft_ms", "over": cell, "under": cell | {"phase": "phase3b"}, "relation": "at_least"}
    reason = "made up for this test"
    return listed.parse(
        {
            "claims": [
                {"id": "COUNT", "statement": "s", "test": "reuse", "parameters": share, "threshold": {"value": 90, "unit": "tokens", "reason": reason}},
                *({"id": name, "statement": "s", "test": "ratio", "parameters": ratio, "threshold": {"value": 2, "unit": "x", "reason": reason}} for name in ("TIME", "OPEN")),
            ]
        }
    )  # fmt: skip


def table(changes: dict[str, dict[str, Any]] | None = None) -> pl.DataFrame:
    rest = dict.fromkeys(CLAIMS) | {"statement": "s", "threshold_reason": "r", "finding": "f", "rows": [], "n": 9}
    rows = [rest | row | (changes or {}).get(row["id"], {}) for row in ROWS]
    return pl.DataFrame(rows, schema=tables.schema(CLAIMS))


def words(found: list[judge.Judged]) -> dict[str, bool | None]:
    return {one.id: one.passed for one in found}


def test_the_same_data_pass_and_what_the_reference_leaves_open_is_not_judged(claims: list[listed.Claim]) -> None:
    assert words(judge.judge(claims, table(), table(), counts_only=False)) == {"COUNT": True, "TIME": True, "OPEN": None}
    assert words(judge.judge(claims, table(), table(), counts_only=True)) == {"COUNT": True, "TIME": None, "OPEN": None}


def test_a_count_without_an_interval_is_compared_all_the_same(claims: list[listed.Claim]) -> None:
    """As in a run of one process, which decides nothing."""
    one, other = (
        {"COUNT": {"verdict": "not decided", "effect": effect, "effect_low": None, "effect_high": None}} for effect in (100.0, 50.0)
    )
    assert words(judge.judge(claims, table(one), table(one), counts_only=True))["COUNT"] is True
    assert words(judge.judge(claims, table(one), table(other), counts_only=True))["COUNT"] is False


def test_another_time_passes_with_the_same_verdict_another_count_does_not(claims: list[listed.Claim]) -> None:
    here = table({"TIME": {"effect": 1.1}, "COUNT": {"effect": 99.0}})
    found = judge.judge(claims, table(), here, counts_only=False)
    assert words(found) == {"COUNT": False, "TIME": True, "OPEN": None}
    assert "a count differs: here supported, 99" in found[0].line and found[0].line.startswith("FAIL COUNT")


def test_another_verdict_fails_with_the_finding(claims: list[listed.Claim]) -> None:
    found = judge.judge(claims, table(), table({"TIME": {"verdict": "not decided", "finding": "two processes only."}}), counts_only=False)
    assert words(found)["TIME"] is False
    assert "not decided" in found[1].reason and "two processes only." in found[1].reason


@pytest.mark.parametrize("counts_only", [True, False])
def test_a_changed_threshold_fails(claims: list[listed.Claim], counts_only: bool) -> None:
    found = judge.judge(claims, table(), table({"COUNT": {"threshold": 10.0}}), counts_only)
    assert found[0].passed is False and "its threshold is 10 % now, shipped was 90" in found[0].reason


def test_claims_made_again_must_be_the_same_in_every_word() -> None:
    assert all(one.passed for one in judge.as_claimed(table(), table()))
    found = {one.id: one for one in judge.as_claimed(table(), table({"TIME": {"finding": "another"}}))}
    assert found["TIME"].passed is False and "finding is 'another' now, shipped was 'f'" in found["TIME"].reason
    assert not any(one.passed for one in judge.as_claimed(table(), None))
    more = judge.as_claimed(table().filter(pl.col("id") != "OPEN"), table())
    assert [(one.id, one.passed) for one in more if not one.passed] == [("OPEN", False)]


def requests(cached: int, trial: int = 0, state: str = "hit") -> dict[str, Any]:
    named = {"phase": "phase3a", "variant": "main", "configuration": "A256_B128", "state": state, "step": "query"}
    return named | {"prompt_tokens": 392, "cached_tokens": cached, "evaluated_tokens": 392 - cached, "rejection": None, "trial": trial}


def test_counts_are_compared_for_every_step_of_every_cell() -> None:
    shipped = judge.counts_of(pl.DataFrame([requests(384), requests(384, 1), requests(0, state="miss")]))
    assert shipped.height == 2
    assert judge.differing_counts(shipped, judge.counts_of(pl.DataFrame([requests(384), requests(0, state="miss")]))) == []
    (line,) = judge.differing_counts(shipped, judge.counts_of(pl.DataFrame([requests(384), requests(383, 1), requests(0, state="miss")])))
    assert line == (
        "phase3a/main/A256_B128/hit/query: 383 of 392 reused, 9 computed or 384 of 392 reused, 8 computed here, 384 of 392 reused, 8 computed shipped"
    )
    assert judge.differing_counts(shipped, judge.counts_of(pl.DataFrame([requests(384)]))) == [
        "phase3a/main/A256_B128/miss/query was not measured here"
    ]
