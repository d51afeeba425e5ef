"""What llama.cpp reuses of a model with sliding windows or a recurrent state: llama-server's checkpoints, the binding's all or nothing.

Source: tools/server/server-context.cpp and src/llama-kv-cache.cpp, llama-cpp-python's llama.py; held against 1,710 answers of
llama-server in a lab.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from coldprefix.engines.llamacpp.tiers import AnyEarlier, Slots, with_tier
from coldprefix.engines.reuse import GENERATED, AtMost, Memory, Nothing, Promise, Slot, exactly
from coldprefix.job import common_prefix

TAIL = 4  # llama-server decodes the last tokens of a prompt apart, so that a checkpoint stands before them
CELLS = 256  # the window cache has a multiple of so many cells


class Checkpoint(NamedTuple):
    """A copy of the state or the window: tokens before it, lowest and highest position in it."""

    tokens: int
    lowest: int
    highest: int


class WindowCells:
    """The cache of the window layers: a ring of cells, in which positions that no window needs any more are overwritten."""

    def __init__(self, window: int, cells: int, ubatch: int) -> None:
        self._window = window
        self._ubatch = ubatch
        self._cells: list[int | None] = [None] * cells
        self._head = 0

    @property
    def lowest(self) -> int:
        """The lowest position that is there; 0 when empty."""
        return min((position for position in self._cells if position is not None), default=0)

    def add(self, start: int, end: int) -> None:
        """Positions ``start`` to ``end`` are computed."""
        for first in range(start, end, self._ubatch):
            self._put(range(first, min(first + self._ubatch, end)))

    def _put(self, positions: range) -> None:
        held = [position for position in self._cells if position is not None]
        head, last = self._head, max(held, default=-1)
        if head > len(held) + 2 * len(positions):
            head = 0
        found: list[int] = []
        for _ in self._cells:
            head %= len(self._cells)
            there = self._cells[head]
            if there is None or last + 1 - there >= self._window:
                found.append(head)
            head += 1
            if len(found) == len(positions):
                break
        overwritten = max((there for cell in found if (there := self._cells[cell]) is not None), default=-1)
        for cell, position in zip(found, positions, strict=True):
            self._cells[cell] = position
        # What lies before an overwritten position is of no use: a window would have a hole.
        self._cells = [None if position is not None and position <= overwritten else position for position in self._cells]
        self._head = found[-1] + 1

    def drop_from(self, start: int) -> None:
        """Positions from ``start`` on are forgotten."""
        gone = [cell for cell, position in enumerate(self._cells) if position is not None and position >= start]
        for cell in gone:
            self._cells[cell] = None
        if gone:
            self._head = min(self._head, gone[0])

    def restore(self, lowest: int, highest: int) -> None:
        """A checkpoint is put back."""
        self._cells = [*range(lowest, highest + 1), *[None] * (len(self._cells) - (highest + 1 - lowest))]
        self._head = 0


def moved(held: list[int], prompt: Sequence[int], shared: int, least: int) -> tuple[int, int]:
    """(tokens that --cache-reuse takes over beyond the common prefix, by giving them other positions in ``held``; the position after the last
    cached token, which may have moved with them).

    It walks the cached tokens forward only, and a run of at least ``least`` equal tokens goes to the head of the rest of the prompt: deletions
    are recovered; what is put in or replaced is a new head, which matches nothing.
    """
    there = at = shared
    end = len(held)
    while there < len(held) and at < len(prompt):
        run = common_prefix(held[there:], prompt[at:])
        if run < least:
            there += 1
            continue
        held[at : at + run] = held[there : there + run]
        there, at = there + run, at + run
        end = at if there == len(held) else len(held)
    return at - shared, end


class MovingSlot(Slot):
    """A slot of llama-server with --cache-reuse: runs of at least ``least`` tokens are moved, with keys and values that saw other tokens."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self._least = least

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        shared = common_prefix(self.held, prompt)
        shared += moved(self.held, prompt, shared, self._least)[0]
        self.held = self.held[:shared]  # what was not moved is dropped, equal or not
        return super().ask(prompt, generated)


class CheckpointSlot(Memory):
    """A slot of llama-server for a model with windows (``window`` tokens) or with a recurrent state (``window`` 0).

    A prompt that does not simply go on where the slot ends goes on from the newest checkpoint before its first new token. There are at
    most two on the way through a prompt, just before its end; an edit further in front costs everything.
    """

    def __init__(self, window: int, context: int, batch: int, ubatch: int, checkpoints: int, moves: int = 0) -> None:
        """``moves``: --cache-reuse, which llama-server takes for a recurrent state without a warning, and wrongly."""
        self._moves = moves
        self._batch, self._ubatch = batch, min(ubatch, batch)
        self._most = checkpoints
        self._window = window
        self._cells = WindowCells(window, min(context, -(-(window + self._ubatch) // CELLS) * CELLS), self._ubatch) if window else None
        self._held: list[int] = []
        self._checkpoints: list[Checkpoint] = []
        self.borders = (window, window + self._ubatch) if window else (self._ubatch,)

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        reused = self._kept(prompt)
        self._held = self._held[:reused]
        if self._cells:
            self._cells.drop_from(reused)
        self._compute(list(prompt))
        for _ in range(generated - 1):
            self._add([GENERATED])
        return exactly(reused)

    def _lowest(self) -> int:
        if not self._held:
            return -1
        return self._cells.lowest if self._cells else len(self._held) - 1

    def _kept(self, prompt: Sequence[int]) -> int:
        """Tokens of the prompt that can stay; checkpoints behind them go."""
        shared = common_prefix(self._held, prompt)
        lowest = self._lowest()
        if self._moves:
            further, end = moved(self._held, prompt, shared, self._moves)
            shared, lowest = shared + further, end - 1  # a state has one position, that of the last token
        reused = shared
        needed = max(0, shared - self._window - (0 if shared < len(prompt) else 1))  # the lowest position that must be there
        if shared and lowest >= needed:
            fitting = (c for c in reversed(self._checkpoints) if c.highest <= shared and (c.lowest < needed or c.lowest == 0))
            found = next(fitting, None)
            shared = min(shared, max(found.lowest + 1, found.highest)) if found else 0
            reused = min(shared, found.tokens) if found else 0
            if found and self._cells:
                self._cells.restore(max(found.lowest, found.highest - self._window + 1), found.highest)
        self._checkpoints = [checkpoint for checkpoint in self._checkpoints if checkpoint.highest <= shared]
        return reused - 1 if reused == len(prompt) else reused

    def _compute(self, prompt: list[int]) -> None:
        length = len(prompt)
        while len(self._held) < length:
            start = len(self._held)
            end = min(length, start + self._batch)
            for stop in (length - min(self._batch, TAIL + self._ubatch), length - min(self._batch, TAIL)):
                end = stop if start < stop < end else end
            self._note(start, near=length < end + self._ubatch)
            self._add(prompt[start:end])

    def _note(self, start: int, near: bool) -> None:
        """Make a checkpoint before the batch that begins at ``start``; ``near``: it ends close to the prompt's end."""
        if not self._most or not near or self._lowest() < 0:
            return
        kept = self._checkpoints[max(0, len(self._checkpoints) - self._most + 1) :]  # room for one more
        self._checkpoints = [checkpoint for checkpoint in kept if checkpoint.tokens != start]
        self._checkpoints.append(Checkpoint(start, self._lowest(), start - 1))

    def _add(self, tokens: list[int]) -> None:
        start = len(self._held)
        self._held += tokens
        if self._cells:
            self._cells.add(start, len(self._held))


def memory_of(in_force: Mapping[str, Any], interface: str) -> Memory:
    """The rule of llama.cpp with these settings in force (log.py, server.py, binding.py)."""
    if not in_force["prompt_cache"]:
        return Nothing()
    window, recurrent, moves = (in_force[key] for key in ("window_tokens", "recurrent", "cache_reuse"))
    if interface == "python":
        return AllOrNothing() if recurrent else Slot()
    slots, tier = in_force["slots"], in_force["host_cache_mib"]
    if slots > 1 or tier:
        if window or recurrent or moves or (slots > 1 and (tier or in_force["kv_unified"])):
            return AtMost(AnyEarlier())  # checkpoints that move with a prompt, idle slots that are saved or purged: not followed here
        return with_tier(tier, in_force["kv_bytes_per_token"]) if tier else Slots(slots)
    if window or recurrent:
        context, batch, ubatch, checkpoints = (in_force[key] for key in ("context_tokens", "batch_tokens", "ubatch_tokens", "checkpoints"))
        return CheckpointSlot(window, context, batch, ubatch, checkpoints, moves if recurrent else 0)
    return MovingSlot(moves) if moves else Slot()


class AllOrNothing(Memory):
    """llama-cpp-python with a recurrent state: what goes on where the last prompt ended reuses all of it, everything else nothing."""

    def __init__(self) -> None:
        self._held: list[int] = []

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        whole = common_prefix(self._held, prompt) == len(self._held) < len(prompt)
        reused = len(self._held) if whole else 0
        self._held = [*prompt, *[GENERATED] * (generated - 1)]
        return exactly(reused)
