"""Before anything is measured: an engine that reuses something else than its rule says, or computes something else than its model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from null_engine import NullSession

from coldprefix.engines.contract import NextToken
from coldprefix.engines.reuse import Memory, Pool
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job
from coldprefix.measure.probe import probe
from coldprefix.measure.reference import check_reference

MakeJob = Callable[..., Job]


@pytest.mark.parametrize(("kind", "block", "requests"), [("slot", 1, 7), ("pool", 128, 35), ("pool", 16, 35)])
def test_an_engine_that_follows_its_rule_passes_on_both_sides_of_a_block_s_border(
    make_job: MakeJob, tmp_path: Path, kind: str, block: int, requests: int
) -> None:
    found = probe(NullSession(kind, block), make_job("phase1", "hit"), 1024, tmp_path / "log")  # type: ignore[arg-type]
    assert len(found) == requests and all(row["promised"] == str(row["reused"]) for row in found)
    lengths = {row["prompt_tokens"] for row in found}
    assert lengths >= ({block - 1, block, block + 1, 2 * block + 7} if block > 1 else {64, 88})
    assert len({row["reused"] for row in found}) > 2, "the rule is asked about more than nothing and all"


class Other(NullSession):
    """Its blocks are larger than those of which it tells."""

    def memory(self) -> Memory:
        return Pool(self.block // 2)


def test_another_rule_than_the_engine_s_is_an_error_that_shows_both(make_job: MakeJob, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("slot: forcing full prompt re-processing due to lack of cache data\n")
    with pytest.raises(ColdprefixError) as caught:
        probe(Other("pool", 64), make_job("phase1", "hit"), 1024, log)
    said = str(caught.value)
    assert "reused 0 tokens, by the rule of its cache it reuses 32" in said and "Its log says: slot: forcing full prompt" in said


def test_an_engine_that_does_not_say_what_it_reuses_cannot_be_verified(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(ColdprefixError, match="does not report how many tokens it reuses"):
        probe(NullSession("pool", 128, reports=False), make_job("phase1", "hit"), 1024, tmp_path / "log")


def test_prompts_fit_a_short_context(make_job: MakeJob, tmp_path: Path) -> None:
    found = probe(NullSession("pool", 128), make_job("phase1", "hit"), 256, tmp_path / "log")
    assert max(row["prompt_tokens"] for row in found) < 256


class Saying(NullSession):
    def __init__(self, logprobs: dict[int, float]) -> None:
        super().__init__("slot")
        self.logprobs = logprobs

    def next_token(self, prompt: Sequence[int]) -> NextToken:
        return NextToken(self.logprobs, 0)


def test_an_engine_that_computes_another_model_is_refused(tmp_path: Path) -> None:
    assert check_reference(Saying({}), tmp_path) is None, "most models have no reference"
    told = {"prompt": [1, 2], "top": {"5": -1.0, "6": -2.0}, "other_top": {"6": -1.0, "5": -2.0}, "transformers": "5", "dtype": "float32"}
    (tmp_path / "reference.json").write_text(json.dumps(told))
    found = check_reference(Saying({5: -1.1, 6: -2.0}), tmp_path)
    assert found is not None and found["difference"] == pytest.approx(0.1) and found["of_another_prompt"] == pytest.approx(1.0)
    for gguf_type in (None, "F16"):
        with pytest.raises(ColdprefixError, match=r"does not compute the model: .* differ by 3 .* 0 are the same"):
            check_reference(Saying({8: -1.0, 9: -4.0}), tmp_path, gguf_type)
    kept = check_reference(Saying({8: -1.0, 9: -4.0}), tmp_path, "Q4_K_M")
    assert kept is not None and kept["difference"] == pytest.approx(3), "its reference is that of the weights before"
    assert check_reference(NullSession("slot"), tmp_path) is None, "it cannot say"
