"""Where the parts of a prompt should stand: expected costs against a simulation, and the best order against all orders."""

from __future__ import annotations

import random
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldprefix.advice.order import best_of, layout_of, reused_by
from coldprefix.advice.times import over_processes, saved
from coldprefix.engines.reuse import Pool, Slot
from coldprefix.errors import ColdprefixError
from coldprefix.measure.edits import load
from coldprefix.study.by_layout import broken, ruler, sweep_of
from coldprefix.study.prompt_file import Prompt, Segment, read_prompt

QUESTION = {"name": "question", "tokens": 20, "changes": "each request"}


def prompt_of(*segments: dict[str, Any], per_hour: float = 600) -> Prompt:
    return Prompt.model_validate({"requests_per_hour": per_hour, "segments": [*segments, QUESTION]})


CLOCK_FIRST = prompt_of(
    {"name": "date", "tokens": 12, "changes": "each minute"},
    {"name": "system", "tokens": 300, "changes": "weekly"},
    {"name": "tools", "tokens": 400, "changes": "daily"},
    {"name": "history", "tokens": 200, "changes": "each request", "added": 40},
)


def test_a_clock_belongs_behind_what_seldom_changes() -> None:
    best = best_of(CLOCK_FIRST, reused_by(Slot))
    assert [segment.name for segment in best.order] == ["system", "tools", "history", "date", "question"], "history keeps most of itself"
    now = layout_of(CLOCK_FIRST.segments, CLOCK_FIRST, reused_by(Slot))
    # One request in ten finds another minute: then everything is computed. The others compute what history and question have new.
    assert now.cases[0].computed == 932 and now.cases[0].chance == pytest.approx(0.1)
    assert now.computed_tokens == pytest.approx(0.1 * 932 + 0.9 * 60, rel=0.01)
    assert best.computed_tokens == pytest.approx(40 + 12 + 20, rel=0.02)


def test_the_expected_cost_is_that_of_a_simulation() -> None:
    chance = random.Random(1)
    memory, new = Slot(), iter(range(10**9))
    content = {segment.name: [next(new) for _ in range(segment.tokens)] for segment in CLOCK_FIRST.segments}
    sent = computed = 0
    for _ in range(4000):
        for segment in CLOCK_FIRST.segments:
            if chance.random() < segment.chance(CLOCK_FIRST.requests_per_hour):
                content[segment.name][segment.kept :] = [next(new) for _ in range(segment.tokens - segment.kept)]
        tokens = [token for segment in CLOCK_FIRST.segments for token in content[segment.name]]
        computed += len(tokens) - memory.ask(tokens, 1).least
        sent += 1
    assert computed / sent == pytest.approx(layout_of(CLOCK_FIRST.segments, CLOCK_FIRST, reused_by(Slot)).computed_tokens, rel=0.05)


OFTEN = st.sampled_from(["never", "weekly", "daily", "hourly", "each minute", "each request", 300.0])


@settings(deadline=None, max_examples=40)
@given(parts=st.lists(st.tuples(st.integers(1, 400), OFTEN, st.booleans()), min_size=1, max_size=5))
def test_no_order_computes_less_than_the_best(parts: list[tuple[int, Any, bool]]) -> None:
    segments = [
        {"name": f"s{i}", "tokens": tokens, "changes": changes, "added": tokens // 2 if grows else 0}
        for i, (tokens, changes, grows) in enumerate(parts)
    ]
    prompt = prompt_of(*segments)
    reused = reused_by(Slot)
    best = layout_of(prompt.best_order(), prompt, reused).computed_tokens
    *rest, question = prompt.segments
    assert best <= min(layout_of([*order, question], prompt, reused).computed_tokens for order in permutations(rest)) + 1e-6


def test_a_saving_is_taken_within_each_process() -> None:
    # Three processes of very different speed, each of which saves 10 ms: of the times nobody could tell, of the differences all do.
    now = {"a": 100.0, "b": 150.0, "c": 200.0, "other": 1.0}
    then = {"b": 140.0, "a": 90.0, "c": 190.0, "alone": 5000.0}
    found = saved(now, then)
    assert (found.value, found.low, found.high) == (10, 10, 10) and found.processes == 3
    low, high = over_processes(now).low, over_processes(now).high
    assert low is not None and high is not None and high - low > 100
    two = saved({"a": 2.0, "b": 3.0}, {"a": 1.0, "b": 1.0})
    assert two.value == 1.5 and two.low is None and two.high is None, "no interval from two processes"


def test_places_are_kept_and_blocks_can_make_an_order_no_better() -> None:
    fixed = prompt_of(
        {"name": "date", "tokens": 12, "changes": "each minute", "place": "first"},
        {"name": "tools", "tokens": 100, "changes": "daily"},
        {"name": "system", "tokens": 300, "changes": "never"},
    )
    assert [segment.name for segment in fixed.best_order()] == ["date", "system", "tools", "question"]
    short = prompt_of({"name": "date", "tokens": 12, "changes": "each minute"}, {"name": "system", "tokens": 60, "changes": "never"})
    assert best_of(short, reused_by(lambda: Pool(128))).names == "date, system, question", "nothing is reused in any order"


def test_what_is_measured_has_a_state_for_each_place_where_an_order_can_break() -> None:
    sweep = sweep_of(CLOCK_FIRST)
    assert sweep["configurations"] == ["A456_B456"] and sweep["question_tokens"] == 20 and sweep["states"] == ["hit"]
    # As it stands it can break at 0, 12, 312 and, in its history, 872; in its best order at 0, 300, and, in its history, 860.
    places = [f"substitute-1@{place}" for place in (0, 12, 300, 312, 860, 872)]
    # It does at 0, which is a cold prompt, and in its history; a new system text or new tools come once in thousands of requests.
    assert sweep["partners"] == [*places, "cold", "substitute-52@860", "substitute-40@872"]


def test_the_ruler_computes_as_many_tokens_in_other_states() -> None:
    halves = prompt_of({"name": "a", "tokens": 25, "changes": 300.0}, {"name": "b", "tokens": 75, "changes": 300.0})
    assert broken(halves) == [*(f"substitute-1@{place}" for place in (0, 25, 75)), "hit"]
    assert ruler(halves) == ["cold", "substitute-75@25", "substitute-25@75", "truncate@99"]
    for state, other in zip(broken(halves), ruler(halves), strict=True):
        computed = [length - shared for length, shared in (load(name).shape(50, 50, 20) for name in (state, other))]
        assert computed[0] == computed[1], (state, other)
    seldom = prompt_of({"name": "a", "tokens": 25, "changes": "daily"}, {"name": "b", "tokens": 75, "changes": "daily"})
    assert broken(seldom) == broken(halves) and ruler(seldom) == ["cold", "truncate@99"]
    short = prompt_of({"name": "a", "tokens": 2, "changes": "each request", "added": 1})
    assert broken(short) == ["substitute-1@1"] and ruler(short) == ["cold"], "the one token of a growth cannot be changed in two ways"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("requests_per_hour: 0\nsegments: []", "requests_per_hour"),
        (
            "requests_per_hour: 9\nsegments: [{name: a, tokens: 3, changes: sometimes}, {name: b, tokens: 3, changes: each request}]",
            "segments.0.changes",
        ),
        (
            "requests_per_hour: 9\nsegments: [{name: a, tokens: 3, changes: never}, {name: b, tokens: 3, changes: daily}]",
            "must be the question",
        ),
        (
            "requests_per_hour: 9\nsegments: [{name: a, tokens: 3, changes: never}, {name: a, tokens: 3, changes: each request}]",
            "'a' comes twice",
        ),
        (
            "requests_per_hour: 9\nsegments: [{name: a, tokens: 3, changes: never, added: 3}, {name: b, tokens: 3, changes: each request}]",
            "added: 3 of 3",
        ),
        ("requests_per_hour: 9\nsegment: []", "there is no such key (did you mean 'segments'?)"),
        ("- 1", "cannot be used"),
        ("a: [", "cannot read"),
    ],
)
def test_a_prompt_file_that_is_wrong_is_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "prompt.yaml"
    file.write_text(text)
    with pytest.raises(ColdprefixError) as caught:
        read_prompt(file)
    assert message in str(caught.value) and str(file) in str(caught.value)


def test_a_number_is_times_an_hour() -> None:
    assert Segment(name="a", tokens=3, changes=30.0).chance(60) == 0.5
    assert Segment(name="a", tokens=3, changes="each minute").chance(6) == 1.0
