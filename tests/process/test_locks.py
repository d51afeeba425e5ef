"""One measurement at a time on a machine, one run at a time in a folder, and nothing that outlives the program it belongs to."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from test_server import gone

from coldprefix.errors import ColdprefixError
from coldprefix.process import locks as exclusive
from coldprefix.process import parent

PATHS = f"import sys; sys.path[:0] = [{str(ROOT / 'src')!r}, {str(ROOT / 'tests')!r}]\n"


def python(program: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PATHS + program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload, no-any-return]


HOLD = (
    "import time; from pathlib import Path; from coldprefix import exclusive\n"
    "exclusive.MACHINE = Path(sys.argv[2])\n"
    "with exclusive.exclusive(sys.argv[1]):\n    print(time.monotonic(), flush=True); time.sleep(0.7)\n    print(time.monotonic(), flush=True)"
)


def test_measurements_wait_for_each_other_whatever_their_temporary_folder_is(tmp_path: Path) -> None:
    both = []
    for name in "ab":
        (tmp_path / name).mkdir()
        both.append(python(HOLD, name, str(tmp_path / "lock"), env={**os.environ, "TMPDIR": str(tmp_path / name)}))
    results = [process.communicate() for process in both]
    spans = sorted(tuple(map(float, out.split())) for out, _ in results)
    assert spans[0][1] <= spans[1][0], "the two overlap"
    assert any("waits for" in err for _, err in results)
    assert Path("/tmp/coldprefix-measuring.lock") == exclusive.MACHINE, "one for all users"


def test_another_user_can_wait_for_the_lock_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusive, "MACHINE", tmp_path / "lock")
    before = os.umask(0o077)
    try:
        with exclusive.exclusive("mine"):
            assert oct((tmp_path / "lock").stat().st_mode)[-3:] == "666"
            assert "mine (process" in (tmp_path / "lock").read_text()
    finally:
        os.umask(before)
    assert (tmp_path / "lock").read_text() == ""


def test_whatever_somebody_wrote_into_the_lock_is_only_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusive, "MACHINE", tmp_path / "lock")
    (tmp_path / "lock").write_bytes(b"\xff\x1b[31m evil\n")
    with open(tmp_path / "lock", "r+b") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        waiting = python(HOLD, "second", str(tmp_path / "lock"))
        time.sleep(1.0)
        assert waiting.poll() is None
    _, err = waiting.communicate(timeout=10)
    assert waiting.returncode == 0 and "second waits for \ufffd[31m evil" in err and "\x1b" not in err, err


@pytest.mark.parametrize("kind", ["link", "hard link", "folder", "pipe"])
def test_a_trap_in_the_lock_s_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Anybody can write to /tmp: a link there must not make us write into a file of ours."""
    lock, mine = tmp_path / "lock", tmp_path / "mine"
    mine.write_text("precious")
    make: dict[str, Callable[[], object]] = {
        "link": lambda: lock.symlink_to(mine),
        "hard link": lambda: lock.hardlink_to(mine),
        "folder": lock.mkdir,
        "pipe": lambda: os.mkfifo(lock),
    }
    make[kind]()
    monkeypatch.setattr(exclusive, "MACHINE", lock)
    with pytest.raises(ColdprefixError, match=rf"{lock}.*remove it"), exclusive.exclusive("x"):
        pass
    assert mine.read_text() == "precious" and oct(mine.stat().st_mode)[-3:] != "666"


# --- one run at a time in a folder --------------------------------------------------------------------------------------------

FOLDER = (
    "import time; from pathlib import Path; from coldprefix.process.locks import hold_folder\n"
    "held, stale = hold_folder(Path(sys.argv[1])); print(len(stale), flush=True); time.sleep(60)"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".snakemake" / "locks").mkdir(parents=True)
    (tmp_path / ".snakemake" / "locks" / "0.output.lock").touch()
    return tmp_path


def test_the_lock_of_a_killed_run_is_removed_and_that_of_a_living_one_is_not(folder: Path) -> None:
    lock = folder / ".snakemake" / "locks" / "0.output.lock"
    first = python(FOLDER, str(folder))
    assert first.stdout is not None and first.stdout.readline() == "1\n", "nobody was there: it was left behind"
    lock.touch()  # Snakemake's, in the first run
    second = python(FOLDER, str(folder))
    assert second.stdout is not None and second.stdout.readline() == "0\n" and lock.exists()
    # The first ends while the second, say a dry run, still looks around: the lock is still not anybody's to remove.
    first.kill()
    first.communicate()
    third = python(FOLDER, str(folder))
    assert third.stdout is not None and third.stdout.readline() == "0\n" and lock.exists()
    for process in (second, third):
        process.kill()
        process.communicate()
    fourth = python(FOLDER, str(folder))
    assert fourth.stdout is not None and fourth.stdout.readline() == "1\n" and not lock.exists()
    fourth.kill()
    fourth.communicate()


def test_a_dry_run_that_came_first_does_not_let_two_runs_in(folder: Path) -> None:
    """The dry run holds the folder, the real run comes, the dry run ends: a third must still see that somebody is there."""
    dry, real = python(FOLDER, str(folder)), None
    assert dry.stdout is not None and dry.stdout.readline()
    real = python(FOLDER, str(folder))
    assert real.stdout is not None and real.stdout.readline()
    lock = folder / ".snakemake" / "locks" / "0.output.lock"
    lock.touch()
    dry.kill()
    dry.communicate()
    third = python(FOLDER, str(folder))
    assert third.stdout is not None and third.stdout.readline() == "0\n" and lock.exists()
    for process in (real, third):
        process.kill()
        process.communicate()


# --- nothing outlives its program -----------------------------------------------------------------------------------------------

FAMILY = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], start_new_session=True); time.sleep(300)"
COMPILES = (
    "from coldprefix.errors import run_main; from coldprefix import supervise\n"
    f"run_main(lambda: supervise.run([sys.executable, '-c', {FAMILY!r}]).returncode)"
)


def family_of(process: subprocess.Popen[str]) -> list[int]:
    """The supervisor, the program and its worker in another session."""
    deadline = time.monotonic() + 10
    while len(found := psutil.Process(process.pid).children(recursive=True)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(found) == 3
    return [child.pid for child in found]


def ended(pids: list[int]) -> bool:
    deadline = time.monotonic() + 8
    while not gone(pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return gone(pids)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_compiler_or_converter_does_not_outlive_the_program_that_runs_it(how: signal.Signals) -> None:
    program = python(COMPILES)
    pids = family_of(program)
    program.send_signal(how)
    _, err = program.communicate(timeout=10)
    assert ended(pids)
    if how != signal.SIGKILL:
        assert program.returncode == 128 + how and err.count("coldprefix: ") == 1 and "Traceback" not in err, err


def test_a_program_that_cannot_be_started_is_said() -> None:
    from coldprefix.process import supervise

    done = supervise.run(["/no/such/program"])
    assert done.returncode == 127 and "cannot start /no/such/program: No such file" in done.stderr


@pytest.mark.parametrize("shell", [False, True])
def test_a_program_ends_when_the_workflow_has_died(shell: bool) -> None:
    """Also below a shell that lives on, and that would go on to its next command."""
    workflow = subprocess.Popen(["sleep", "60"])
    env = {**os.environ, parent.VARIABLE: str(workflow.pid)}
    program = PATHS + "from coldprefix.errors import run_main; import time; run_main(lambda: time.sleep(60))"
    command = [sys.executable, "-c", program]
    if shell:
        command = ["bash", "-c", '"$0" -c "$1" && echo next', sys.executable, program]
    job = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(1.0)
    assert job.poll() is None
    workflow.kill()
    workflow.wait()
    out, err = job.communicate(timeout=8)
    assert job.returncode == 143 and "ended by SIGTERM" in err and "next" not in out
    late = subprocess.run(command, env=env, capture_output=True, text=True, timeout=8)
    assert late.returncode == 143 and "the run that started this program has ended" in late.stderr and "next" not in late.stdout


# In C and not to be interrupted, as an engine in this process.
BUSY = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)"


def test_a_program_that_hears_no_signal_ends_all_the_same() -> None:
    workflow = subprocess.Popen(["sleep", "60"])
    program = f"from coldprefix import parent; parent.PATIENCE_S = 1.0; parent.end_with_workflow(); print('x', flush=True); {BUSY}"
    job = python(program, env={**os.environ, parent.VARIABLE: str(workflow.pid)})
    assert job.stdout is not None and job.stdout.readline() == "x\n"
    workflow.kill()
    workflow.wait()
    job.communicate(timeout=10)
    assert job.returncode == -signal.SIGKILL or job.returncode == -signal.SIGTERM


@pytest.mark.parametrize("late", [True, False])
def test_an_engine_that_does_not_come_back_ends_its_process(late: bool) -> None:
    watch = "from coldprefix.process.watchdog import Watchdog; from pathlib import Path; import os, time\n"
    watch += "dog = Watchdog('phase3b/A/hit: an engine', Path('a.log'), 1.0); os.close(2)\n"
    inside = BUSY if late else "time.sleep(0.2)"
    job = python(f"{watch}with dog.limit('gave no complete answer within 1 s (timeout_s)', 1.0):\n    {inside}\ntime.sleep(2.5)")
    _, err = job.communicate(timeout=10)
    said = "\ncoldprefix: phase3b/A/hit: an engine gave no complete answer within 1 s (timeout_s). Its log: a.log\n\n"
    assert (job.returncode, err) == ((1, said) if late else (0, ""))
