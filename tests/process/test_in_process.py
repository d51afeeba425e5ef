"""An engine inside this process: what it changes is given back, and one that does not come back ends with one message."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from test_program import BUSY, python

from coldprefix.errors import ColdprefixError
from coldprefix.process.identity import born
from coldprefix.process.in_process import TMP, InProcess
from coldprefix.process.server import clean_environment

ENVIRONMENT = {"PATH": os.environ["PATH"], "ENGINE": "yes"}
BEGIN = (
    "import json, os, subprocess; from pathlib import Path; from coldprefix.errors import ColdprefixError\n"
    "from coldprefix.process.in_process import InProcess\n"
    "before = dict(os.environ)\n"
    "def say(text):\n"  # from Python and from below it, as a library does
    "    print(text); print(text, file=sys.stderr); os.system(f'echo {text}-below; echo {text}-below >&2')\n"
)


def here(log: Path, start_timeout_s: float = 60.0, timeout_s: float = 60.0) -> str:
    """Part of a program."""
    return f"here = InProcess('phase2/A/hit', 'an engine', Path({str(log)!r}), {ENVIRONMENT!r}, {start_timeout_s}, {timeout_s})\n"


@pytest.fixture
def tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of this process."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def inside(log: Path, own_tmp: bool = False) -> InProcess:
    """An engine inside this very process."""
    return InProcess("cell", "an engine", log, clean_environment({"ENGINE": "yes"}), 60.0, 60.0, own_tmp)


def test_environment_and_output_are_the_engine_s_until_it_is_closed(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "engine.log"
    program = (
        f"say('before')\n{here(log)}"
        "with here.starting(Path('model')): say('starting'); own = dict(os.environ)\n"
        "with here.answering(3): say('answering')\n"
        "still = dict(os.environ); here.close(); say('after'); here.close()\n"
        f"print(own == still == {ENVIRONMENT!r}, dict(os.environ) == before)"
    )
    job = python(BEGIN + program, env={**os.environ, "HF_TOKEN": "secret"})
    out, err = job.communicate(timeout=20)
    assert out.split() == ["before", "before-below", "after", "after-below", "True", "True"], err
    assert err.split() == ["before", "before-below", "after", "after-below"]
    assert sorted(log.read_text().split()) == sorted(2 * ["starting", "starting-below", "answering", "answering-below"])


@pytest.mark.parametrize("error", ["ValueError('no such file')", "KeyboardInterrupt"])
def test_they_are_given_back_after_a_failed_start_too(tmp_path: Path, error: str) -> None:
    log = tmp_path / "engine.log"
    program = (
        f"{here(log)}try:\n    with here.starting(Path('model')): say('half-way'); raise {error}\n"
        "except (ColdprefixError, KeyboardInterrupt) as error: print(repr(str(error)))\n"
        "print(dict(os.environ) == before); say('after')"
    )
    job = python(BEGIN + program)
    out, err = job.communicate(timeout=20)
    told, *rest = out.splitlines()
    assert rest == ["True", "after", "after-below"] and err.split() == ["after", "after-below"]
    assert log.read_text().split().count("half-way") == 2
    if "KeyboardInterrupt" not in error:
        assert "an engine cannot load model: no such file" in told and f"The end of {log}:" in told and "half-way-below" in told


def test_a_failed_answer_is_our_error_and_the_engine_keeps_what_it_has(tmp: Path) -> None:
    engine = inside(tmp / "log")
    with pytest.raises(ColdprefixError, match=r"an engine failed on a prompt of 7 tokens: StopIteration\(\)"), engine.answering(7):
        next(iter(()))
    assert os.environ["ENGINE"] == "yes"
    engine.close()


def test_a_temporary_folder_of_its_own_is_removed(tmp: Path) -> None:
    engine = inside(tmp / "log", own_tmp=True)
    own = Path(tempfile.gettempdir())
    assert own == tmp / f"{TMP}{os.getpid()}-{born(os.getpid())}" and os.environ["TMPDIR"] == str(own)
    assert oct(own.stat().st_mode)[-3:] == "700"
    (own / "store").mkdir()
    (own / "store" / "file").touch()
    engine.close()
    assert not own.exists() and tempfile.gettempdir() == str(tmp) == os.environ["TMPDIR"]


def test_that_of_a_killed_process_is_removed_by_the_next_one_and_that_of_a_living_one_is_not(tmp: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    living, me = os.getppid(), os.getpid()
    names = [f"{TMP}{ended.pid}-123", f"{TMP}{living}-1", f"{TMP}nonsense"]  # the second: its number is another's by now
    kept = [f"{TMP}{living}-{born(living)}", "coldprefix-browser"]
    for name in [*names, *kept]:
        (tmp / name).mkdir()
        (tmp / name / "file").touch()
    (tmp / f"{TMP}1-1").symlink_to(tmp / kept[1])
    engine = inside(tmp / "log", own_tmp=True)
    found = {path.name for path in tmp.iterdir() if path.is_dir() and not path.is_symlink()}
    engine.close()
    assert found == {*kept, f"{TMP}{me}-{born(me)}"}
    assert (tmp / kept[1] / "file").exists(), "what a link names is not ours to remove"


@pytest.mark.parametrize("late", [True, False])
def test_an_engine_that_does_not_come_back_ends_its_process(tmp_path: Path, late: bool) -> None:
    log = tmp_path / "a.log"
    act = BUSY if late else "time.sleep(0.2)"
    program = f"import time\n{here(log, 60.0, 1.0)}with here.answering(3):\n    {act}\nprint('log', flush=True); time.sleep(2.5); here.close(); print('out')"
    job = python(BEGIN + program)
    out, err = job.communicate(timeout=20)
    said = f"\ncoldprefix: phase2/A/hit: an engine gave no complete answer within 1 s (timeout_s). Its log: {log}\n\n"
    assert (job.returncode, err, out) == ((1, said, "") if late else (0, "", "out\n"))
    assert log.read_text() == ("" if late else "log\n")


def test_an_engine_that_does_not_get_ready_ends_its_process(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    job = python(f"{BEGIN}{here(log, 1.0, 60.0)}with here.starting(Path('model')):\n    {BUSY}")
    _, err = job.communicate(timeout=20)
    said = f"\ncoldprefix: phase2/A/hit: an engine was not ready after 1 s (start_timeout_s). Its log: {log}\n\n"
    assert (job.returncode, err) == (1, said)
