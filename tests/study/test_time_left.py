"""The time that is left, from the events that Snakemake tells its loggers."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from coldprefix.study.time_left import CELL_S, OTHER_S, TimeLeft, words

Tell = Callable[..., None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def left() -> TimeLeft:
    return TimeLeft(["phase1", "phase3b"])


@pytest.fixture
def tell(left: TimeLeft) -> Tell:
    logger = logging.Logger("snakemake")
    logger.addHandler(left)
    return lambda event, **told: logger.info("", extra={"event": event, **told})


def test_cells_that_were_measured_tell_how_long_the_others_take(
    left: TimeLeft, tell: Tell, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    tell(LogEvent.RUN_INFO, stats={"phase1": 2, "phase3b": 3, "aggregate": 1, "all": 1, "total": 7})
    assert left.seconds() == 5 * CELL_S + 2 * OTHER_S
    for job, seconds in enumerate((30.0, 50.0)):
        tell(LogEvent.JOB_INFO, jobid=job, rule_name="phase3b")
        clock[0] += seconds
        tell(LogEvent.JOB_FINISHED, job_id=job)
    # One of phase3b at 40 s, and two of phase1, of which nothing is known, at what cells took.
    assert left.seconds() == 3 * 40 + 2 * OTHER_S
    assert capsys.readouterr().err.splitlines()[-1] == "coldprefix: 5 steps to go, about 2 minutes"


def test_other_events_and_unknown_jobs_say_nothing(left: TimeLeft, tell: Tell, capsys: pytest.CaptureFixture[str]) -> None:
    tell(LogEvent.JOB_FINISHED, job_id=3)
    tell(LogEvent.PROGRESS, done=1, total=2)
    logging.Logger("snakemake").info("no event at all")
    assert left.seconds() == 0 and capsys.readouterr().err == ""


def test_words() -> None:
    assert [words(s) for s in (3, 600, 9000)] == ["3 s", "10 minutes", "2.5 hours"]
