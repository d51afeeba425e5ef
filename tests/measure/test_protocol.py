"""The protocol against caches with known behaviour: the steps, their order, and what is rejected."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import psutil
import pytest
from null_engine import NullSession

from coldprefix.analysis.summary import trials_of
from coldprefix.data.raw import as_frame
from coldprefix.engines.contract import Completion
from coldprefix.engines.reuse import Promise, exactly
from coldprefix.errors import ColdprefixError, EngineRefusal
from coldprefix.job import Job
from coldprefix.measure import protocol
from coldprefix.measure.load import Load
from coldprefix.measure.verify import intended_reuse, rejection

FAST = {"settle_ms": 0, "trials": 4, "burn_in": 1, "partners": []}
MakeJob = Callable[..., Job]


def run(session: NullSession, job: Job) -> list[protocol.Row]:
    return protocol.run_process(session, job, 0, 0, lambda rows: None)


def cached(rows: list[protocol.Row], step: str) -> set[int | None]:
    return {row["cached_tokens"] for row in rows if row["step"] == step}


@pytest.mark.parametrize(
    ("kind", "block", "state", "query", "rewarm"),
    [
        ("slot", 1, "hit", {768}, {767}),  # the prefix stays; an exact repeat computes one token
        ("slot", 1, "miss", {0}, {0}),  # the cascade: the miss destroyed [A, B]
        ("pool", 128, "hit", {768}, {640}),  # whole blocks; the last one of an exact repeat is computed again
        ("pool", 128, "miss", {0}, {640}),  # a block pool keeps [A, B] beside [B, Q]
    ],
)
def test_what_each_step_reuses(make_job: MakeJob, kind: str, block: int, state: str, query: set[int], rewarm: set[int]) -> None:
    rows = run(NullSession(kind, block), make_job("phase3a", state, FAST))  # type: ignore[arg-type]
    assert [row["step"] for row in rows[:4]] == ["warmup", "query", "rewarm", "stream"]
    assert [row["order"] for row in rows] == list(range(20))
    assert [row["burn_in"] for row in rows] == [True] * 4 + [False] * 16
    assert cached(rows, "warmup") == {0}
    assert cached(rows, "query") == cached(rows, "stream") == query
    assert cached(rows, "rewarm") == rewarm
    assert not any(row["rejection"] for row in rows)


@pytest.mark.parametrize(("kind", "block"), [("slot", 1), ("pool", 128)])
def test_repeated_prompts_in_a_block_pool_are_not_misses(make_job: MakeJob, kind: str, block: int) -> None:
    """The original study's confound: from the second trial on, a block pool's "misses" are hits, and are rejected."""
    job = make_job("phase1", "miss", FAST | {"content": "repeated"})
    rows = run(NullSession(kind, block), job)  # type: ignore[arg-type]
    rejected = {row["trial"] for row in rows if row["rejection"]}
    assert rejected == (set() if kind == "slot" else {0, 1, 2, 3, 4})
    if kind == "pool":
        with pytest.raises(ColdprefixError) as caught:
            protocol.check_rejected(rows, job)
        message = str(caught.value)
        assert "4 of 4 trials are not what they were meant to be" in message and "reused 256 tokens, should be 0" in message


def test_an_engine_that_reports_no_reuse_gives_no_valid_trial(make_job: MakeJob) -> None:
    job = make_job("phase1", "hit", FAST)
    rows = run(NullSession("pool", 128, reports=False), job)
    assert {row["rejection"] for row in rows} == {"the engine did not report how many tokens it reused"}
    assert {row["cached_tokens"] for row in rows} == {None}
    with pytest.raises(ColdprefixError, match="did not report"):
        protocol.check_rejected(rows, job)


def test_a_few_rejected_trials_are_kept_and_left_out_of_statistics(make_job: MakeJob) -> None:
    class Forgetful(NullSession):
        def complete(self, prompt: object, max_tokens: int, stream: bool) -> Completion:
            if len(self.sent) == 13:  # the query of trial 3
                self.kept = []
            return super().complete(prompt, max_tokens, stream)  # type: ignore[arg-type]

    job = make_job("phase3a", "hit", FAST | {"max_rejected": 0.25})
    rows = run(Forgetful("slot"), job)
    protocol.check_rejected(rows, job)
    trials = trials_of(as_frame(rows).lazy()).collect()
    assert trials.height == 5
    assert trials["valid"].to_list() == [False, True, True, False, True]
    assert trials["rejection"].to_list()[3] == "reused 0 tokens, should be 768"
    with pytest.raises(ColdprefixError):
        protocol.check_rejected(rows, make_job("phase3a", "hit", FAST | {"max_rejected": 0.2}))


def test_reset_empties_the_cache_before_every_trial(make_job: MakeJob) -> None:
    session = NullSession("pool", 128)
    rows = run(session, make_job("phase1", "hit", FAST | {"reset": "trial", "content": "repeated"}))
    assert session.resets == 5
    assert cached(rows, "warmup") == {0} and not any(row["rejection"] for row in rows)


def test_the_prompts_sent_are_the_same_for_all_backends(make_job: MakeJob) -> None:
    sent = []
    for phase, kind in (("phase1", "pool"), ("phase3b", "slot")):
        session = NullSession(kind)  # type: ignore[arg-type]
        run(session, make_job(phase, "miss", FAST))
        sent.append(session.sent)
    assert sent[0] == sent[1]


def test_partners_are_measured_in_the_same_process_in_a_random_order(make_job: MakeJob) -> None:
    jobs = [make_job("phase3a", state, FAST | {"partners": ["hit", "miss", "cold"]}) for state in ("hit", "miss")]
    found = [run(NullSession("slot"), job) for job in jobs]
    for job, rows in zip(jobs, found, strict=True):
        assert not any(row["rejection"] for row in rows)
        rounds = [[row["state"] for row in rows if row["trial"] == trial and row["step"] == "query"] for trial in range(5)]
        assert all(sorted(states) == ["cold", "hit", "miss"] for states in rounds) and len({tuple(states) for states in rounds}) > 1
        assert {row["own"] for row in rows if row["state"] == job.state} == {True}
        assert {row["own"] for row in rows if row["state"] != job.state} == {False}
        assert {row["generated_tokens"] for row in rows if row["step"] == "stream" and not row["own"]} == {protocol.PARTNER_TOKENS}
        assert [row["order"] for row in rows] == list(range(5 * (4 + 4 + 2)))
        assert {row["step"] for row in rows if row["state"] == "cold"} == {"query", "stream"}, "nothing is warmed"
        assert {row["cached_tokens"] for row in rows if row["state"] == "cold"} == {0}
        first = [tuple(row["prompt_hash"] for row in rows if row["trial"] == t and row["state"] == "miss") for t in range(5)]
        assert len(set(first)) == 5
    alone = run(NullSession("slot"), make_job("phase3a", "hit", FAST))
    own = [row["prompt_hash"] for row in found[0] if row["own"]]
    assert own == [row["prompt_hash"] for row in alone], "partners do not change what its own trials are sent"
    assert protocol.order_of(jobs[0], 0, 0) == protocol.order_of(jobs[0], 0, 0)


def test_repeated_prompts_have_no_partners(make_job: MakeJob) -> None:
    """What a trial finds is what the one before has left: the history is the point."""
    assert [kind.state for kind in make_job("phase3a", "miss", {"content": "repeated"}).kinds] == ["miss"]


def answer(**changes: object) -> Completion:
    values: dict[str, object] = {
        "started_at": 0.0,
        "connect_ms": None,
        "total_ms": 5.0,
        "token_times_ms": [1.0, 2.0],
        "prompt_tokens": 10,
        "cached_tokens": 8,
        "evaluated_tokens": 2,
        "generated_tokens": 2,
        "first_chunk_tokens": 1,
    }
    return Completion(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"prompt_tokens": None, "evaluated_tokens": None}, None),
        ({"cached_tokens": None}, "did not report"),
        ({"cached_tokens": 7, "evaluated_tokens": 3}, "reused 7 tokens, should be 8"),
        ({"cached_tokens": 9, "evaluated_tokens": 1}, "reused 9 tokens, should be 8"),
        ({"evaluated_tokens": 3}, "are not the 10 sent"),
        ({"prompt_tokens": 11}, "saw a prompt of 11 tokens"),
        ({"generated_tokens": 1}, "generated 1 tokens, 2 were asked for"),
        ({"token_times_ms": [1.0]}, "1 arrivals were seen of 2 generated tokens"),
        ({"first_chunk_tokens": 2}, "first chunk carried 2 tokens"),
        ({"first_chunk_tokens": None}, "first chunk carried None"),
    ],
)
def test_rejection(changes: dict[str, object], reason: str | None) -> None:
    found = rejection(answer(**changes), 10, exactly(8), 2, streamed=True)
    assert (found is None) if reason is None else (found is not None and reason in found)


def test_where_a_rule_promises_a_range_every_number_in_it_will_do() -> None:
    assert rejection(answer(), 10, Promise(4, 8), 2, streamed=True) is None
    assert rejection(answer(), 10, Promise(0, 7), 2, streamed=True) == "reused 8 tokens, should be 0 to 7"


@pytest.mark.parametrize(
    ("step", "content", "reset", "form", "intended"),
    [
        ("query", "fresh", "never", "tokens", 700),
        ("stream", "fresh", "never", "chat", 700),
        ("query", "repeated", "never", "tokens", 700),
        ("warmup", "fresh", "never", "tokens", 0),
        ("warmup", "fresh", "never", "chat", None),
        ("warmup", "repeated", "never", "tokens", None),
        ("warmup", "repeated", "trial", "text", 0),
        ("rewarm", "fresh", "never", "tokens", None),
    ],
)
def test_intended_reuse(make_job: MakeJob, step: str, content: str, reset: str, form: str, intended: int | None) -> None:
    own = make_job("phase3a", "hit", {"content": content, "reset": reset, "request_form": form}).protocol
    assert intended_reuse(step, exactly(700), True, own) == (None if intended is None else exactly(intended))
    if step == "query":
        cold = exactly(0) if content == "fresh" else None
        assert intended_reuse(step, exactly(700), False, own) == cold, "nothing was warmed"


class Templated(NullSession):
    """An engine that puts the same three tokens before every prompt, as a chat template does."""

    def seen(self, prompt: Sequence[int]) -> list[int]:
        return [1, 2, 3, *prompt]

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        return super().complete(self.seen(prompt), max_tokens, stream)


def test_of_a_chat_message_the_template_s_head_is_reused_even_by_a_miss(make_job: MakeJob) -> None:
    rows = run(Templated("slot"), make_job("phase3a", "miss", FAST | {"request_form": "chat"}))
    assert not any(row["rejection"] for row in rows)
    assert cached(rows, "query") == {3} and {row["prompt_tokens"] for row in rows if row["step"] == "query"} == {283}
    # Of an engine that does not say what it makes of a prompt, the same answer is not what was meant, and is rejected.
    wrong = run(Secretive("slot"), make_job("phase3a", "miss", FAST))
    assert {row["rejection"] for row in wrong if row["step"] == "query"} == {"reused 3 tokens, should be 0"}


class Secretive(NullSession):
    """Puts them there, too, and tells neither that nor how long a prompt was."""

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        return replace(super().complete([1, 2, 3, *prompt], max_tokens, stream), prompt_tokens=None, evaluated_tokens=None)


class Refusing(NullSession):
    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        raise EngineRefusal("too long")


def test_a_refusal_is_a_result_only_where_all_may_be_rejected(make_job: MakeJob) -> None:
    rows = run(Refusing("slot"), make_job("phase3a", "miss", FAST | {"max_rejected": 1}))
    assert len(rows) == 20 and {row["rejection"] for row in rows} == {"the engine refused: too long"}
    assert {row["total_ms"] for row in rows} == {None}, "what was not measured has no time"
    with pytest.raises(EngineRefusal):
        run(Refusing("slot"), make_job("phase3a", "miss", FAST))


def test_foreign_load_sees_a_busy_neighbour_and_tells_the_workflow_apart() -> None:
    quiet = Load([])
    time.sleep(0.5)
    before = quiet.since_last()
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        loads = Load([]), Load([busy.pid]), Load([], busy.pid)
        began, used = time.monotonic(), psutil.Process(busy.pid).cpu_times().user
        time.sleep(1.0)
        used = (psutil.Process(busy.pid).cpu_times().user - used) / (time.monotonic() - began) / (psutil.cpu_count() or 1)
        stranger, engine, workflow = (load.since_last() for load in loads)
    finally:
        busy.kill()
        busy.wait()
    assert used > 0.05, "it has run"
    assert before["foreign_cpu"] is not None and before["workflow_cpu"] is None
    # The share that it used, unless the process is known to be ours.
    assert stranger["foreign_cpu"] > engine["foreign_cpu"] + 0.8 * used and stranger["workflow_cpu"] is None
    assert stranger["foreign_cpu"] > workflow["foreign_cpu"] + 0.8 * used and workflow["workflow_cpu"] == pytest.approx(used, rel=0.2)


def test_a_helper_of_the_engine_that_has_just_ended_is_no_failure() -> None:
    assert Load([2**22 + 1]).since_last().keys() == {"foreign_cpu", "workflow_cpu", "steal_cpu", "cpu_mhz"}
