"""The original's own numbers, as data: they decide what no other machine can, and are labelled."""

from __future__ import annotations

import csv
import re

import pytest
from claim_data import LISTED, check, frame, own
from conftest import ROOT

from coldprefix.claims import listed
from coldprefix.claims.checks import original_report
from coldprefix.claims.table import check_all
from coldprefix.errors import ColdprefixError

ABOUT = [entry["id"] for entry in LISTED if entry["test"] == "original_report"]


@pytest.mark.parametrize("name", ABOUT)
def test_it_says_that_it_is_from_the_report_and_of_that_hardware(name: str) -> None:
    found = check(name, frame())
    assert found["finding"].startswith("From the original's report") and found["hardware"] == "GTX 1650, as the report says"
    assert found["effect_low"] is None, "the report has no intervals"
    assert found["verdict"] == "refuted" and all(row.startswith("study/original.csv: ") for row in found["rows"])


def test_server_and_binding_computed_at_the_same_speed_and_that_raises_a_question() -> None:
    found = check("C4b", frame())
    assert found["effect"] == pytest.approx(393.8 / 350)
    for words in ("0.55 and 0.62 ms a token", "0.31 and 0.27 TFLOP/s", "did llama.cpp run on that GPU at all?", "offloaded n/n layers"):
        assert words in found["finding"]


def test_its_misses_on_the_server_had_not_destroyed_the_prefix() -> None:
    assert check("C4a", frame())["effect"] == pytest.approx(21.4 / 350)


@pytest.mark.parametrize(
    ("relation", "threshold", "verdict"), [("at_most", 2, "supported"), ("within", 1.2, "supported"), ("within", 1.1, "refuted")]
)
def test_the_relation_decides(relation: str, threshold: float, verdict: str) -> None:
    parameters = next(entry for entry in LISTED if entry["id"] == "C4b")["parameters"] | {"relation": relation}
    entry = own(test="original_report", parameters=parameters, threshold__value=threshold)
    assert check_all(listed.parse({"claims": [entry]}), frame(), [])["verdict"].item() == verdict


def test_a_number_that_was_not_reported_is_refused() -> None:
    parameters = {"over": {"phase": "phase1", "metric": "warmup"}, "under": {"phase": "phase3b", "metric": "ttft"}, "relation": "at_most"}
    with pytest.raises(ColdprefixError, match=re.escape("over: study/original.csv has no row phase1/warmup")):
        listed.parse({"claims": [own(test="original_report", parameters=parameters)]})


def test_every_row_is_a_number_with_its_source_and_named_once() -> None:
    with (ROOT / "study/original.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [tuple(row[key] for key in original_report.KEYS) for row in rows]
    assert len(set(names)) == len(names) == original_report.table().height > 30
    assert all(row["unit"] and re.match(r"(study|validity)\.md", row["source"]) and float(row["value"]) for row in rows)
