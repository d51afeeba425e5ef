"""Steady clients, each with a prefix of its own that hits, and one more whose request comes in the middle: a hit, a miss, or nothing.

Only for sessions over HTTP: a client is a thread with a connection of its own. Before each round every client's prefix is sent once, so that
what is measured is a hit whatever the round before has evicted; each answer is verified by what the engine says that it reused.
"""

from __future__ import annotations

import itertools
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from coldprefix.engines.contract import Completion, Session
from coldprefix.engines.reuse import Memory, Promise
from coldprefix.measure.load import Load
from coldprefix.measure.prompts import token_range
from coldprefix.measure.verify import rejection

STATES = ("none", "hit", "miss")  # what the other client does
OTHER = -1  # its number
LATE = -2  # of a steady client whose request comes right after the other one's
LATE_MS = 5.0
Row = dict[str, Any]
ROWS: dict[str, tuple[pl.DataType, str]] = {
    "phase": (pl.String(), "the backend"),
    "variant": (pl.String(), "settings that differ, as they were asked for"),
    "process": (pl.Int32(), "which engine process, from 0"),
    "engine_process": (pl.String(), "tells the process from all others"),
    "clients": (pl.Int32(), "steady clients at the same time"),
    "round": (pl.Int32(), "which round of this process; each has one request of the other client at most"),
    "state": (pl.String(), "what the other client sends in this round: none, hit or miss"),
    "client": (pl.Int32(), "a steady client, from 0; -1: the other one; -2: a steady one whose request comes 5 ms after the other one's"),
    "number": (pl.Int32(), "which of the client's requests in this round"),
    "prompt_tokens": (pl.Int32(), "tokens that were sent"),
    "cached_tokens": (pl.Int32(), "prompt tokens that the engine says it reused"),
    "evaluated_tokens": (pl.Int32(), "prompt tokens that the engine says it computed"),
    "rule_tokens": (pl.Int32(), "what it must have reused"),
    "generated_tokens": (pl.Int32(), "tokens that it generated"),
    "started_at": (pl.Float64(), "wall clock when it was sent, in s"),
    "ttft_ms": (pl.Float64(), "time to first token"),
    "total_ms": (pl.Float64(), "until the answer was complete"),
    "gap_ms": (pl.Float64(), "median time between two tokens"),
    "longest_gap_ms": (pl.Float64(), "longest time between two tokens"),
    "streaming": (pl.Boolean(), "the other client's request was sent between this one's first and last token"),
    "during": (pl.Boolean(), "this request was sent while the other client's waited for its first token"),
    "foreign_cpu": (pl.Float64(), "share of the machine's CPU that others used in this round"),
    "rejection": (pl.String(), "why the request cannot be used; null: it can"),
}
SCHEMA = {name: dtype for name, (dtype, _) in ROWS.items()}


@dataclass(frozen=True)
class Shape:
    """Of the requests, in tokens: prefixes of the steady clients and of the other one, what is appended, what is generated; and how many requests
    each steady client sends in a round."""

    prefix: int = 256
    other: int = 640
    added: int = 16
    generated: int = 32
    requests: int = 3

    @property
    def longest(self) -> int:
        """Context that the longest request needs."""
        return max(self.prefix + self.added + self.generated, self.other + self.added + 1)


class Draw:
    """Prompts of which none begins with the token of another, but where one goes on with it."""

    def __init__(self, vocabulary: int, seed: Sequence[int]) -> None:
        self._tokens = token_range(vocabulary)
        self._rng = np.random.default_rng(seed)
        self._firsts = iter(self._rng.permutation(len(self._tokens)))

    def part(self, length: int) -> list[int]:
        """New tokens."""
        ids = self._rng.integers(self._tokens.start, self._tokens.stop, length)
        ids[0] = self._tokens.start + next(self._firsts)
        return [int(token) for token in ids]


def run(session: Session, vocabulary: int, levels: Sequence[int], rounds: int, shape: Shape, seed: Sequence[int], keys: Row) -> list[Row]:
    """Rounds of every number of clients and every state, in random order. Returns a row for each request (ROWS).

    Raises:
        ColdprefixError: the engine failed, or refused a request.
    """
    draw = Draw(vocabulary, seed)
    chance = random.Random(str(list(seed)))
    prefixes = {client: draw.part(shape.prefix) for client in range(max(levels))} | {
        OTHER: draw.part(shape.other),
        LATE: draw.part(shape.prefix),
    }
    _Round(session, draw, prefixes, max(levels), STATES[0], replace(shape, requests=1), 0.0).rows()  # an engine's first round is slow
    load = Load(session.process_ids())
    rows: list[Row] = []
    waits: dict[int, float] = {}
    for number in range(rounds):
        order = [(clients, state) for clients in levels for state in STATES]
        chance.shuffle(order)
        if not waits:  # how long an answer takes, with nobody else there
            order = [(clients, STATES[0]) for clients in levels] + [each for each in order if each[1] != STATES[0]]
        for clients, state in order:
            done = _Round(session, draw, prefixes, clients, state, shape, waits.get(clients, 0.0)).rows()
            machine = load.since_last()["foreign_cpu"]
            own = {"round": number, "clients": clients, "state": state, "foreign_cpu": machine, "engine_process": session.identity}
            rows += [keys | own | row for row in done]
            if state == STATES[0]:
                waits[clients] = statistics.median(
                    (row["ttft_ms"] or 0.0) + 0.3 * _streaming_ms(row) for row in done if not row["number"] and row["client"] >= 0
                )
    return rows


def _streaming_ms(row: Row) -> float:
    return max(0.0, (row["total_ms"] or 0.0) - (row["ttft_ms"] or 0.0))


class _Round:
    """One round: all clients at once, and the other one after ``wait_ms``."""

    def __init__(
        self, session: Session, draw: Draw, prefixes: dict[int, list[int]], clients: int, state: str, shape: Shape, wait_ms: float
    ) -> None:
        self._session, self._shape, self._state, self._wait_ms = session, shape, state, wait_ms
        self._who = [*range(clients), LATE, *([OTHER] if state != STATES[0] else [])]
        # Drawn before the clock runs, and each client's memory warmed as the engine's is.
        self._prompts = {who: [prefixes[who] + draw.part(shape.added) for _ in range(shape.requests)] for who in range(clients)}
        self._prompts[LATE] = [prefixes[LATE] + draw.part(shape.added)]
        if state != STATES[0]:
            self._prompts[OTHER] = [(prefixes[OTHER] if state == "hit" else draw.part(shape.other)) + draw.part(shape.added)]
        self._memories: dict[int, Memory] = {}
        for who in self._who:
            self._memories[who] = session.memory()
            if who != OTHER or state == "hit":
                self._memories[who].ask(prefixes[who], 1)
                session.complete(prefixes[who], 1, stream=False)
        self._barrier = threading.Barrier(len(self._who))
        self._found: dict[int, list[tuple[Promise, int, Completion]]] = {who: [] for who in self._who}
        self._failed: list[BaseException] = []

    def rows(self) -> list[Row]:
        threads = [threading.Thread(target=self._client, args=(who,), daemon=True) for who in self._who]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failed:
            raise self._failed[0]
        return list(self._told())

    def _client(self, who: int) -> None:
        try:
            self._barrier.wait()
            if who in (OTHER, LATE):
                time.sleep((self._wait_ms + LATE_MS * (who == LATE)) / 1e3)
            for prompt in self._prompts[who]:
                tokens = 1 if who == OTHER else self._shape.generated
                promise = self._memories[who].ask(prompt, tokens)
                self._found[who].append((promise, tokens, self._session.complete(prompt, tokens, stream=True)))
        except BaseException as error:  # told by the thread that has started this one
            self._failed.append(error)
            self._barrier.abort()

    def _told(self) -> Iterator[Row]:
        other = self._found[OTHER][0][2] if OTHER in self._found else None
        for who, found in self._found.items():
            for number, (promise, tokens, done) in enumerate(found):
                length = len(self._prompts[who][number])
                # A server's counter of all requests says nothing of one of several at the same time.
                why = rejection(replace(done, counted_tokens=None), length, promise, tokens, True)
                # A chunk of several tokens has no time between them, so it is no reason to leave the others out.
                times = done.token_times_ms
                gaps = [after - before for before, after in itertools.pairwise(times)]
                yield {
                    "client": who,
                    "number": number,
                    "prompt_tokens": length,
                    "cached_tokens": done.cached_tokens,
                    "evaluated_tokens": done.evaluated_tokens,
                    "rule_tokens": promise.least,
                    "generated_tokens": done.generated_tokens,
                    "started_at": done.started_at,
                    "ttft_ms": done.ttft_ms,
                    "total_ms": done.total_ms,
                    "gap_ms": statistics.median(gaps) if gaps else None,
                    "longest_gap_ms": max(gaps, default=None),
                    **_beside(done, other if who != OTHER else None),
                    "rejection": why,
                }


def _beside(done: Completion, other: Completion | None) -> dict[str, bool | None]:
    """Where the other client's request fell. Both clocks are this machine's."""
    if other is None or not done.token_times_ms or other.ttft_ms is None:
        return {"streaming": None, "during": None}
    first, last = (done.started_at + ms / 1e3 for ms in (done.token_times_ms[0], done.token_times_ms[-1]))
    sent, answered = other.started_at, other.started_at + other.ttft_ms / 1e3
    return {"streaming": first <= sent <= last, "during": sent <= done.started_at <= answered}


def check(rows: Sequence[Row], most: float, say: Callable[[str], None]) -> float:
    """The share of requests that are rejected, and says why if it is more than ``most``."""
    bad = [row["rejection"] for row in rows if row["rejection"]]
    share = len(bad) / max(1, len(rows))
    if share > most:
        say(f"{len(bad)} of {len(rows)} requests are not what they were meant to be: {statistics.mode(bad)}")
    return share
