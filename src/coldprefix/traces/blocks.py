"""Caches of whole blocks, as block pools have them: one that keeps what was used last, and one that is as good as unlimited.

A block is known by the hashes of itself and of all before it, since keys and values depend on these: public traces whose hashes are of a block
alone (Qwen-Bailian) count right, too.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from numpy import ascontiguousarray

from coldprefix.traces.tree import Ids

MOST_BLOCKS = 1 << 22  # that the unlimited cache remembers: about 120 bytes each


def chained(hashes: Sequence[int]) -> list[int]:
    """A key for each prefix of blocks. 64 bits: with ten million blocks, two prefixes share one with a chance of 3 in a million."""
    key, keys = 0, []
    for block in hashes:
        key = hash((key, block))
        keys.append(key)
    return keys


def keys_of(ids: Ids, block: int) -> list[int]:
    """The same from token ids, for each prefix of whole blocks of ``block`` tokens."""
    data = ascontiguousarray(ids, dtype="<i4").tobytes()
    size = 4 * block
    key, keys = b"", []
    for end in range(size, len(data) + 1, size):
        key = hashlib.blake2b(key + data[end - size : end], digest_size=7).digest()
        keys.append(int.from_bytes(key))
    return keys


def whole(blocks: int, tokens: int, block: int) -> int:
    """Tokens that a prompt of ``tokens`` reuses of so many known blocks: at least its last token is computed."""
    return min(blocks, (tokens - 1) // block) * block


class Lru:
    """A cache of ``most`` blocks that drops the one that was used longest ago, of a prompt the last block first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[int, None] = OrderedDict()

    def ask(self, keys: Sequence[int]) -> int:
        """How many of a prompt's blocks it has, from the first on without a gap; then it keeps the prompt."""
        kept = self._kept
        known = next((i for i, key in enumerate(keys) if key not in kept), len(keys))
        for key in reversed(keys):
            kept[key] = None
            kept.move_to_end(key)
        for _ in range(len(kept) - self._most):
            kept.popitem(last=False)
        return known


class Known:
    """Numbers by key, of at least the last ``most`` / 2 keys that were used: two generations, of which the older one is dropped when the
    younger is full.

    Attributes:
        forgot: was anything dropped? Then what it finds is a lower bound.
    """

    def __init__(self, most: int = MOST_BLOCKS) -> None:
        self._half = max(1, most // 2)
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}
        self.forgot = False

    def get(self, key: int) -> int | None:
        """The number that was last put for a key, None if there is none."""
        found = self._young.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: int, number: int) -> None:
        """Remember a number for a key."""
        if key not in self._young and len(self._young) >= self._half:
            self.forgot = self.forgot or bool(self._old)
            self._old, self._young = self._young, {}
        self._young[key] = number
