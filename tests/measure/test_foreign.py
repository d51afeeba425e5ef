"""Other prompts between a warm-up and its query: what is sent, in which order, and what a small cache must have kept of the first."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from null_engine import NullSession

from coldprefix.analysis.summary import trials_of
from coldprefix.data.raw import as_frame
from coldprefix.engines.reuse import Memory
from coldprefix.engines.vllm.reuse import FreeQueue
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job, Lengths, common_prefix
from coldprefix.measure import protocol
from coldprefix.measure.prompts import FOREIGN_PROMPT, draw_trial

MakeJob = Callable[..., Job]
FAST = {"settle_ms": 0, "trials": 2, "burn_in": 0, "partners": ["foreign-300"]}
LENGTHS = Lengths(A=64, B=32, Q=8)


def run(session: NullSession, job: Job) -> list[protocol.Row]:
    return protocol.run_process(session, job, 0, 0, lambda rows: None)


def test_other_prompts_have_the_tokens_that_were_asked_for_and_share_nothing_with_any() -> None:
    trials = [draw_trial(LENGTHS, "foreign-300", 50_257, 7, 0, number, "fresh") for number in range(40)]
    sent = [prompt for trial in trials for prompt in (trial.warm, *trial.before_query, *trial.before_stream)]
    for trial in trials:
        for others in (trial.before_query, trial.before_stream):
            assert [len(prompt) for prompt in others] == [FOREIGN_PROMPT, FOREIGN_PROMPT, 44]
        assert common_prefix(trial.warm, trial.query) == 96 and common_prefix(trial.query, trial.stream) == 96
    assert len({prompt[0] for prompt in sent}) == len(sent)


def test_a_hit_is_sent_the_same_tokens_as_the_query_after_others() -> None:
    hit, foreign = (draw_trial(LENGTHS, state, 50_257, 7, 0, 4, "fresh") for state in ("hit", "foreign-300"))
    assert (hit.warm, hit.query, hit.stream) == (foreign.warm, foreign.query, foreign.stream)
    assert not hit.before_query and not hit.before_stream


def test_a_vocabulary_that_is_too_small_for_so_many_first_tokens_is_refused() -> None:
    draw_trial(LENGTHS, "foreign-300", 1000, 7, 0, 5, "fresh")
    with pytest.raises(ColdprefixError, match="distinct first tokens for 6 trials"):
        draw_trial(LENGTHS, "foreign-300", 1000, 7, 0, 6, "fresh")


def test_they_are_sent_before_the_query_and_again_before_the_stream(make_job: MakeJob) -> None:
    rows = [row for row in run(NullSession("slot"), make_job("phase3a", "hit", FAST)) if row["state"] == "foreign-300"]
    others = ["foreign"] * 3
    assert [row["step"] for row in rows[:10]] == ["warmup", *others, "query", "rewarm", *others, "stream"]
    asked = {row["cached_tokens"] for row in rows if row["step"] != "rewarm"}
    assert asked == {0} and not any(row["rejection"] for row in rows), "one slot keeps nothing"
    trials = trials_of(as_frame(rows).lazy()).collect()
    assert set(trials["foreign_tokens"]) == {300} and set(trials["foreign_ms"]) == {10.0}
    hits = trials_of(as_frame(run(NullSession("slot"), make_job("phase3a", "hit", FAST | {"partners": []}))).lazy()).collect()
    assert set(hits["foreign_tokens"]) == {0} and set(hits["foreign_ms"]) == {None}


class SmallPool(NullSession):
    """Says that it is a pool of 12 usable blocks, and never loses any."""

    def memory(self) -> Memory:
        return FreeQueue(64, 13)


def test_a_cache_that_keeps_more_than_its_rule_says_is_not_believed(make_job: MakeJob) -> None:
    job = make_job("phase1", "foreign-300", FAST | {"partners": [], "vllm.block_tokens": 64, "max_rejected": 1}, "A384_B128")
    rows = run(SmallPool("pool", 64), job)
    assert {row["rejection"] for row in rows if row["step"] == "query"} == {"reused 512 tokens, should be 448"}


def test_with_repeated_prompts_the_state_is_meant_against_the_warm_up_and_the_others(make_job: MakeJob) -> None:
    job = make_job("phase1", "foreign-300", FAST | {"content": "repeated", "max_rejected": 1}, "A384_B128")
    rows = run(SmallPool("pool", 64), job)
    wanted = {row["intended_cached_tokens"] for row in rows if row["step"] in ("query", "stream")}
    assert wanted == {448}
    assert [row["trial"] for row in rows if row["step"] == "foreign"] == list(itertools.chain([0] * 6, [1] * 6))
