"""A word for each token id, for servers that take text only."""

from __future__ import annotations

from collections.abc import Sequence

ONSETS = ["b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z"]
VOWELS = ["a", "e", "i", "o", "u"]
SYLLABLES = [onset + vowel for onset in ONSETS for vowel in VOWELS]


def word_of(number: int) -> str:
    """A word that no other number has: its digits to the base of the syllables."""
    word = ""
    while True:
        number, digit = divmod(number, len(SYLLABLES))
        word = SYLLABLES[digit] + word
        if not number:
            return word


def text_of(numbers: Sequence[int]) -> str:
    """Words for numbers. What a tokenizer makes of them is some tokens for each, so two texts part where their words do."""
    return " ".join(word_of(number) for number in numbers)
