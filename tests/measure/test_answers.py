"""An answer after a reuse must be a cold engine's: right caches pass, one that reuses wrong content with right counts does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from null_engine import NullSession

from coldprefix.engines.contract import NextToken
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job
from coldprefix.measure.answers import check_answers, distance

MakeJob = Callable[..., Job]
FAST = {"settle_ms": 0, "trials": 2, "burn_in": 0, "partners": []}


class Speaking(NullSession):
    """Its next token depends on all tokens of the prompt, as far as it has computed them itself: what it reuses, it believes.

    Args:
        noise: of log-probabilities that were computed after a reuse.
        wrong: it keeps another content than that of the prompts that it has seen, and counts as if it were right.
    """

    def __init__(self, noise: float = 0.0, wrong: bool = False) -> None:
        super().__init__("slot")
        self.noise, self.wrong = noise, wrong

    def next_token(self, prompt: Sequence[int]) -> NextToken:
        done = self.complete(prompt, 1, stream=False)
        reused = done.cached_tokens or 0
        content = [token + 1 for token in prompt[:reused]] if self.wrong else list(prompt[:reused])
        values = np.random.default_rng([*content, *prompt[reused:]]).standard_normal(50)
        values += self.noise * np.random.default_rng(1).standard_normal(50) * bool(reused)
        best = np.argsort(-values)[:20]
        return NextToken({int(token): float(values[token]) for token in best}, reused)


@pytest.mark.parametrize("state", ["hit", "miss"])
def test_a_right_cache_passes_and_says_what_was_reused(make_job: MakeJob, state: str) -> None:
    """Of a miss nothing is reused: there the check is that of its partner, a hit."""
    job = make_job("phase3a", state, FAST | {"partners": ["hit"]})
    checked = check_answers(Speaking(noise=0.01), job, 0, 32)
    assert checked is not None and len(checked) == 1
    (found,) = checked
    assert (found["state"], found["reused_tokens"], found["cold_reused_tokens"]) == ("hit", 768, 0)
    assert found["difference"] < 0.1 < found["of_another_context"]


def test_every_state_of_a_cell_of_which_something_is_reused_is_checked(make_job: MakeJob) -> None:
    job = make_job("phase3a", "hit", FAST | {"partners": ["miss", "cold", "delete-16@50%", "insert-3@100"]})
    checked = check_answers(Speaking(noise=0.01), job, 0, 32) or []
    assert {one["state"]: one["reused_tokens"] for one in checked} == {"hit": 768, "delete-16@50%": 384, "insert-3@100": 100}


def test_wrong_content_with_right_counts_fails_and_both_answers_are_shown(make_job: MakeJob) -> None:
    with pytest.raises(ColdprefixError, match=r"768 tokens were reused is not answered as by a cold engine \(0 reused\)") as caught:
        check_answers(Speaking(wrong=True), make_job("phase3a", "hit", FAST), 0, 32)
    assert "After the reuse: token" in str(caught.value) and "cold: token" in str(caught.value)


def test_an_engine_that_cannot_be_emptied_or_cannot_say_is_not_asked(make_job: MakeJob) -> None:
    class Full(Speaking):
        def reset(self) -> None:
            raise ColdprefixError("a host-memory tier")

    assert check_answers(Full(), make_job("phase3a", "hit", FAST), 0, 32) is None
    assert check_answers(NullSession("slot"), make_job("phase3a", "hit", FAST), 0, 32) is None
    assert check_answers(Speaking(), make_job("phase3a", "miss", FAST), 0, 32) == [], "nothing is reused"
    assert check_answers(Speaking(), make_job("phase3a", "hit", FAST | {"content": "repeated"}), 0, 32) is None


def test_a_token_that_the_other_does_not_name_is_as_far_as_is_known() -> None:
    assert distance({1: -1.0, 2: -2.0}, {1: -1.25, 2: -2.0}) == 0.25
    assert distance({1: -1.0, 2: -2.0}, {3: -1.0, 4: -4.0}) == 3.0
