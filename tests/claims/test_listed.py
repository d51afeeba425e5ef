"""claims.yaml: what is wrong in it is refused with its path and a correction; a test is a file and a line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from claim_data import frame, own
from conftest import ROOT

from coldprefix.claims import checks, listed
from coldprefix.claims.table import check_all
from coldprefix.errors import ColdprefixError
from coldprefix.study.registry import CHECKS


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([own(), own()], "claims.1 (mine).id: 'mine' is taken"),
        (
            [own(test="ratios")],
            "claims.0 (mine).test: there is no test 'ratios' (did you mean 'ratio'?); the tests are ratio, miss_over_hit",
        ),
        ([own(parameters__metrc="x")], "parameters.metrc: there is no such key (did you mean 'metric'?); the keys here are metric, over"),
        ([own(parameters__over__phse="x")], "parameters.over.phse: there is no such key (did you mean 'phase'?); the keys here are phase"),
        (
            [own(parameters__metric="ttft")],
            "parameters.metric: there is no metric 'ttft' (did you mean 'ttft_ms'?); the metrics are ttft_ms,",
        ),
        (
            [own(parameters__over__phase="phase9")],
            "parameters.over.phase: there is no phase 'phase9' (did you mean 'phase2'?); the phases are phase1",
        ),
        ([own(parameters__relation="like")], "parameters.relation: 'like' is not 'at_least', 'at_most' or 'within'"),
        ([own(threshold__unit="ms")], "threshold.unit: the test ratio compares in 'x', not 'ms'"),
        ([own(threshold__value=0.1)], "threshold.value: `within` is between 1/value and value; write 1.1 for 10 %"),
        ([own(threshold={"value": 1, "unit": "x"})], "threshold.reason: this key is missing"),
        ([own(verdict="supported")], "claims.0 (mine).verdict: there is no such key"),
        (
            [own(figure="fig2_scale")],
            "claims.0 (mine).figure: there is no figure 'fig2_scale' (did you mean 'fig2_scaling'?); the figures are fig1_invalidation",
        ),
        ([own(figure="phase_panels")], "claims.0 (mine).figure: there is no figure 'phase_panels' (did you mean 'phase2_panels'?)"),
        ([own(figure="phase9_panels")], "claims.0 (mine).figure: there is no figure 'phase9_panels'"),
        ([own(scope={"hardwear": "GTX 1650"})], "scope.hardwear: there is no such key (did you mean 'hardware'?)"),
        ([own(scope={"hardware": ""})], "claims.0 (mine).scope.hardware:"),
        (["mine"], "claims.0: 'mine'"),
        ([], "must hold one key, `claims`"),
    ],
)
def test_a_wrong_file_is_refused_with_path_and_correction(entries: list[Any], message: str) -> None:
    with pytest.raises(ColdprefixError, match=re.escape(message)):
        listed.parse({"claims": entries})


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ColdprefixError) as error:
        listed.parse({"claims": [own(test="ratios"), own(id="other", parameters__relation="like")]})
    assert "claims.0 (mine).test" in str(error.value) and "claims.1 (other).parameters.relation" in str(error.value)


@pytest.mark.parametrize("figure", ["fig2_scaling", "phase3a_panels", None])
def test_a_claim_may_name_the_figure_that_shows_it(figure: str | None) -> None:
    claims = listed.parse({"claims": [own(figure=figure), own(id="other")]})
    assert check_all(claims, frame(), [])["figure"].to_list() == [figure, None]


def test_the_claims_of_the_repository_name_their_figures() -> None:
    shown = {claim.id: claim.figure for claim in listed.load(ROOT / "claims.yaml") if claim.figure and claim.id.startswith("C")}
    drawn = {claim.id[0]: claim.figure for claim in listed.load(ROOT / "claims.yaml") if claim.id[0] in "AET" and claim.id != "T6"}
    assert drawn == {"A": "fig3_architectures", "E": "fig8_edits", "T": "fig10_eviction"}
    cascade = dict.fromkeys(("C6a", "C6b", "C9a", "C9b", "C9c", "C9d", "C9e", "C9f"), "fig4_cascade")
    others = {"C3": "fig5_batch_size", "C5": "fig3_backends", "C10": "fig2_scaling"}
    others |= dict.fromkeys(("C2", "C4", "C5a"), "fig6_confound")
    assert shown == cascade | others


def test_a_test_is_a_file_and_a_line() -> None:
    files = {path.stem for path in Path(checks.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(CHECKS) and all(isinstance(checks.check(name), checks.Check) for name in CHECKS)


def test_every_test_is_described_to_users() -> None:
    page = (ROOT / "docs/claims.md").read_text()
    assert [name for name in CHECKS if f"`{name}`" not in page] == []
