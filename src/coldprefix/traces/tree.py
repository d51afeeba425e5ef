"""The prompts of a trace as a radix tree of tokens: the longest prefix that a new one shares with any before, and with which.

As in SGLang's RadixAttention (Zheng et al. 2024). Memory: 4 bytes for each token that no earlier prompt shares, and two nodes a prompt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]


class _Node:
    __slots__ = ("children", "last", "tokens")

    def __init__(self, tokens: Ids, last: int) -> None:
        self.tokens = tokens
        self.last = last  # the latest prompt that goes through all its tokens
        self.children: dict[int, _Node] = {}


class Tree:
    """All prompts so far."""

    def __init__(self) -> None:
        self._root = _Node(np.empty(0, np.int32), -1)

    def add(self, ids: Ids, number: int) -> tuple[int, int | None]:
        """Add a prompt. Returns the tokens of the longest prefix shared with an earlier one, and the number of the latest that shares it
        (None: nothing is shared)."""
        node, at, earlier = self._root, 0, None
        while at < len(ids):
            first = int(ids[at])
            child = node.children.get(first)
            if child is None:
                node.children[first] = _Node(ids[at:].copy(), number)
                return at, earlier
            most = min(len(child.tokens), len(ids) - at)
            other = np.flatnonzero(child.tokens[:most] != ids[at : at + most])
            shared = int(other[0]) if len(other) else most
            earlier = child.last
            if shared < len(child.tokens):
                upper = _Node(child.tokens[:shared].copy(), number)
                child.tokens = child.tokens[shared:].copy()
                upper.children[int(child.tokens[0])] = child
                node.children[first] = child = upper
            child.last = number
            node, at = child, at + shared
        return at, earlier
