"""Prompts: exact lengths, and reuse that is known exactly."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldprefix.errors import ColdprefixError
from coldprefix.job import Lengths, common_prefix
from coldprefix.measure.prompts import draw_trial, token_range

LENGTHS = Lengths(A=512, B=256, Q=24)


@given(
    lengths=st.tuples(st.integers(1, 300), st.integers(1, 300), st.integers(1, 60)),
    seed=st.integers(0, 2**31),
    trial=st.integers(0, 50),
    vocabulary=st.sampled_from([1000, 32_000, 50_257, 50_272, 151_936]),
)
def test_lengths_are_exact_and_tokens_ordinary(lengths: tuple[int, int, int], seed: int, trial: int, vocabulary: int) -> None:
    a, b, q = lengths
    parts = Lengths(A=a, B=b, Q=q)
    hit = draw_trial(parts, "hit", vocabulary, seed, 0, min(trial, 20), "fresh")
    miss = draw_trial(parts, "miss", vocabulary, seed, 0, min(trial, 20), "fresh")
    assert (len(hit.warm), len(hit.query), len(hit.stream), common_prefix(hit.warm, hit.query)) == (a + b, a + b + q, a + b + q, a + b)
    assert (len(miss.warm), len(miss.query), len(miss.stream), common_prefix(miss.warm, miss.query)) == (a + b, b + q, b + q, 0)
    assert all(token in token_range(vocabulary) for token in hit.stream + miss.stream)


def test_fresh_prompts_share_exactly_what_is_meant() -> None:
    """Over all prompts of a process: only a hit's queries extend their own warm prompt; nothing else shares a token."""
    for state, shared in (("hit", 768), ("miss", 0)):
        trials = [draw_trial(LENGTHS, state, 50_257, 7, 0, t, "fresh") for t in range(40)]
        for one, other in itertools.combinations(trials, 2):
            for x, y in itertools.product((one.warm, one.query, one.stream), (other.warm, other.query, other.stream)):
                assert common_prefix(x, y) == 0
        for trial in trials:
            assert common_prefix(trial.warm, trial.query) == common_prefix(trial.warm, trial.stream) == shared
            # A block pool keeps the first query: the second must not find more there than was meant.
            assert common_prefix(trial.query, trial.stream) == shared


def test_lengths_that_are_mixed_in_a_process_share_no_first_token() -> None:
    trials = [draw_trial(Lengths(A=16, B=b, Q=24), "miss", 50_257, 7, 0, number, "fresh") for number, b in enumerate([8, 104, 904] * 12)]
    assert len({prompt[0] for trial in trials for prompt in (trial.warm, trial.query, trial.stream)}) == 3 * len(trials)


def test_a_cold_prompt_is_that_of_a_hit_without_a_warm_up() -> None:
    hit, cold = (draw_trial(LENGTHS, state, 50_257, 7, 0, 4, "fresh") for state in ("hit", "cold"))
    assert cold.query == hit.query and not cold.warm and common_prefix(cold.query, cold.stream) == 0


@pytest.mark.parametrize(
    ("state", "length", "shared"),
    [
        ("substitute-1@0%", 792, 0),
        ("substitute-12@50%", 792, 384),
        ("insert-16@100", 808, 100),
        ("insert-16@100%", 808, 768),
        ("delete-16@50%", 776, 384),
        ("delete-16@752", 776, 752),  # the end: nothing stands behind it
        ("swap-100@20%-60%", 792, 153),
        ("truncate@50%", 408, 384),
        ("prepend-12", 804, 0),
    ],
)
def test_an_edit_shares_what_stands_before_it_and_its_second_query_is_another(state: str, length: int, shared: int) -> None:
    for number in range(30):
        trial = draw_trial(LENGTHS, state, 50_257, 7, 0, number, "fresh")
        assert (len(trial.query), len(trial.stream), len(trial.warm)) == (length, length, 768)
        assert common_prefix(trial.warm, trial.query) == shared
        # A second query may be the same edit one place further; it finds no more of the first one than of the warm-up.
        assert abs(common_prefix(trial.warm, trial.stream) - shared) <= 1
        assert common_prefix(trial.query, trial.stream) <= shared and trial.query != trial.stream


def test_what_an_edit_leaves_alone_stays_where_it_belongs() -> None:
    def of(state: str) -> tuple[list[int], list[int]]:
        trial = draw_trial(LENGTHS, state, 50_257, 7, 0, 4, "fresh")
        return trial.warm, trial.query

    warm, query = of("substitute-12@50%")
    assert query[:384] + warm[384:396] + query[396:768] == warm
    warm, query = of("insert-16@100")
    assert query[:100] + query[116:784] == warm
    warm, query = of("delete-16@50%")
    assert query[:384] + warm[384:400] + query[384:752] == warm
    warm, query = of("swap-100@20%-60%")
    assert query[:153] + query[460:560] + query[253:460] + query[153:253] + query[560:768] == warm
    warm, query = of("truncate@50%")
    assert query[:384] == warm[:384]
    warm, query = of("prepend-12")
    assert query[12:780] == warm


def test_repeated_prompts_are_the_same_in_every_trial() -> None:
    first = draw_trial(LENGTHS, "miss", 50_257, 7, 0, 0, "repeated")
    assert draw_trial(LENGTHS, "miss", 50_257, 7, 3, 9, "repeated") == first
    assert first.query == first.stream


def test_a_hit_and_a_miss_of_one_number_share_their_text_and_processes_do_not() -> None:
    hit, miss = (draw_trial(LENGTHS, state, 50_257, 7, 0, 4, "fresh") for state in ("hit", "miss"))
    assert hit.warm == miss.warm and hit.query[512:] == miss.query
    assert draw_trial(LENGTHS, "hit", 50_257, 7, 1, 4, "fresh").warm != hit.warm
    assert draw_trial(LENGTHS, "hit", 50_257, 8, 0, 4, "fresh").warm != hit.warm


def test_the_draw_is_the_same_on_every_machine() -> None:
    lengths = Lengths(A=3, B=2, Q=2)
    assert draw_trial(lengths, "hit", 50_257, 1, 0, 0, "fresh").stream == [10240, 37202, 39416, 9658, 17577, 14220, 16199]
    assert draw_trial(lengths, "miss", 50_257, 1, 0, 1, "fresh").stream == [26747, 38978, 38641, 13806]


def test_too_many_trials_for_the_vocabulary_are_refused() -> None:
    with pytest.raises(ColdprefixError, match="distinct first tokens"):
        draw_trial(Lengths(A=8, B=8, Q=8), "hit", 1000, 1, 0, 400, "fresh")
