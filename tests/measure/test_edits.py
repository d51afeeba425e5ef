"""Edits of every kind and depth: how their states are written, and what is refused."""

from __future__ import annotations

import pytest

from coldprefix.measure import edits
from coldprefix.study import registry


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            "delet-16@50%",
            "there is no state 'delet-16@50%' (did you mean 'delete'?); the states are hit, miss, cold, substitute-TOKENS@PLACE",
        ),
        ("delete", "'delete' is not written delete-TOKENS@PLACE; a place is a number of tokens, or a share: delete-16@50%"),
        ("delete-16", "is not written delete-TOKENS@PLACE"),
        ("delete-0@50%", "'delete-0@50%' changes nothing; write at least 1 token"),
        ("hit-3", "write hit, which takes no numbers"),
        ("swap-16@50%", "is not written swap-TOKENS@PLACE-PLACE; a place is a number of tokens, or a share: swap-16@20%-60%"),
        ("swap-1@1-2", "swaps segments of at least 2 tokens"),
        ("truncate-5@50%", "is not written truncate@PLACE"),
        ("prepend-12@0", "is not written prepend-TOKENS"),
        ("foreign-9@50%", "is not written foreign-TOKENS"),
        ("foreign-9000", "sends at most 8192 tokens in between; make the cache smaller instead"),
        ("delete-16@half", "'delete-16@half' is no state: write an edit"),
        ("Hit", "is no state"),
        ("../hit", "is no state"),
    ],
)
def test_what_is_written_wrongly_is_refused_with_what_to_write(state: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        registry.edit(state)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("substitute-1@100%", "1 tokens from 100% on are more than [A, B] has (96)"),
        ("substitute-1@97", "the place 97 lies beyond the 96 tokens of [A, B]"),
        ("insert-1@101%", "the place 101% lies beyond the 96 tokens"),
        ("delete-90@10", "90 tokens from 10 on are more than [A, B] has (96)"),
        ("delete-96@0", "nothing of [A, B] would be left"),
        ("truncate@100%", "truncate@100% drops nothing of the 96 tokens of [A, B]; write hit"),
        ("swap-20@10-20", "segments of 20 tokens at 10 and 20 overlap"),
        ("swap-20@10-90", "or leave [A, B] (96 tokens)"),
    ],
)
def test_what_does_not_fit_the_prompt_is_refused(state: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        registry.edit(state).shape(64, 32, 8)
    assert message in str(caught.value)


def test_states_stand_in_the_order_of_their_edits() -> None:
    assert registry.in_order(["delete-2@1", "insert-1@9", "miss", "insert-1@3", "hit"]) == [
        "hit",
        "miss",
        "insert-1@9",
        "insert-1@3",
        "delete-2@1",
    ]


def test_every_edit_has_a_form_and_a_meaning() -> None:
    examples = [
        "hit",
        "miss",
        "cold",
        "substitute-1@5",
        "insert-2@50%",
        "delete-3@0",
        "swap-2@0-4",
        "truncate@50%",
        "prepend-2",
        "foreign-9",
    ]
    assert [edits.name_of(state) for state in examples] == list(registry.EDITS)
    for state in examples:
        found = registry.edit(state)
        assert found.meaning.startswith("query [") and found.colour.startswith("#")
        assert found.shape(32, 16, 4)[1] <= 48
