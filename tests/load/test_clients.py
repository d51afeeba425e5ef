"""Steady clients at the same time, on an engine without arithmetic that answers them all."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from null_engine import NullSession

from coldprefix.engines.contract import Completion
from coldprefix.errors import ColdprefixError
from coldprefix.figures import style
from coldprefix.load.clients import LATE, OTHER, SCHEMA, Shape, check, run
from coldprefix.load.figure import draw
from coldprefix.load.table import table
from coldprefix.study.config import Config

SHAPE = Shape(prefix=64, other=128, added=4, generated=8, requests=2)
STALL_S = 0.05


class Busy(NullSession):
    """Computes one prompt at a time; while it computes a long one, nobody gets a token."""

    def __init__(self) -> None:
        super().__init__("pool")
        self.lock = threading.Lock()
        self.until = 0.0

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        with self.lock:
            done = super().complete(prompt, max_tokens, stream)
        started, zero = time.time(), time.monotonic()
        if done.evaluated_tokens and done.evaluated_tokens > 100 and stream:
            self.until = time.monotonic() + STALL_S
        times = []
        for _ in range(max_tokens):
            time.sleep(0.004 + max(0.0, self.until - time.monotonic()))
            times.append((time.monotonic() - zero) * 1e3)
        return replace(done, started_at=started, total_ms=times[-1], token_times_ms=times if stream else [])


@pytest.fixture(scope="module")
def rows() -> pl.DataFrame:
    found = [
        row
        for process in range(3)
        for row in run(
            _named(process), 50_000, [1, 3], 2, SHAPE, [1, process], {"phase": "phase3a", "variant": "default", "process": process}
        )
    ]
    return pl.DataFrame(found, SCHEMA)


def _named(process: int) -> Busy:
    session = Busy()
    session.process = str(process)
    return session


def test_every_answer_is_verified_and_the_other_client_hits_and_misses(rows: pl.DataFrame) -> None:
    assert not rows["rejection"].drop_nulls().len()
    steady, other, late = rows.filter(pl.col("client") >= 0), rows.filter(client=OTHER), rows.filter(client=LATE)
    assert (steady["cached_tokens"] == 64).all() and (steady["prompt_tokens"] == 68).all()
    assert set(other.filter(state="hit")["cached_tokens"]) == {128} and set(other.filter(state="miss")["cached_tokens"]) == {0}
    assert (late["cached_tokens"] == 64).all() and late.height == 3 * 2 * 3 * 2
    # 3 processes, 2 rounds, 3 states: 1 and 3 clients with two requests each, and the other one in two of the states
    assert steady.height == 3 * 2 * 3 * (1 + 3) * 2 and other.height == 3 * 2 * 2 * 2


def test_a_miss_stalls_the_neighbours_and_a_hit_does_not(rows: pl.DataFrame) -> None:
    found = table(rows).filter(metric="longest_gap_ms")
    (cost,) = found.filter(state="miss - hit", clients=3)["median"]
    assert 0.5 * STALL_S * 1e3 < cost < 3 * STALL_S * 1e3
    assert found.filter(state="miss - hit", clients=3)["ci_low"][0] is not None


def test_the_figure_says_what_it_is_made_of(rows: pl.DataFrame, config: Config, tmp_path: Path) -> None:
    record = {
        "job": {"model": {"name": "m", "random_weights": True}, "threads": 2, "accelerator": "cpu"},
        "host": {"cpu": "a CPU", "gpus": []},
    }
    drawing = draw(table(rows), rows, [record], config.figures)
    assert f"{rows.height} requests, 0 rejected" in drawing.caption
    style.save(drawing, [tmp_path / "f.pdf"], config.figures)


class Deaf(Busy):
    """Reuses nothing."""

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        with self.lock:
            self.kept = []
        return super().complete(prompt, max_tokens, stream)


class Dying(Busy):
    """Fails when it is asked for a stream."""

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        if stream:
            raise ColdprefixError("the engine is dead")
        return super().complete(prompt, max_tokens, stream)


def test_a_hit_that_is_none_is_rejected_and_a_failure_ends_all_clients() -> None:
    found = run(Deaf(), 50_000, [2], 1, SHAPE, [1], {})
    said: list[str] = []
    assert check(found, 0.2, said.append) > 0.8 and "reused 0 tokens, should be 64" in said[0]
    with pytest.raises(ColdprefixError, match="the engine is dead"):
        run(Dying(), 50_000, [2], 1, SHAPE, [1], {})
