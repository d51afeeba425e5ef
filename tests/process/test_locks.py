"""One measurement at a time on a machine, with no server of another run beside it, and one run at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_lease import APART, STARTED, apart, start
from test_program import python
from test_server import gone

from coldprefix.errors import ColdprefixError
from coldprefix.process import lease, locks

__all__ = ["apart"]  # a fixture, which each test here uses
# Other users of this machine are not waited for, where that is not what is tested.
HOLD = (
    f"{APART}import time; from pathlib import Path; from coldprefix.process import locks\n"
    "locks.MACHINE, lease.strangers = Path(sys.argv[2]), list\n"
    "with locks.exclusive(sys.argv[1]):\n    print(time.monotonic(), flush=True); time.sleep(0.7)\n    print(time.monotonic(), flush=True)"
)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of this test's own, and no other user's servers but those in it. A socket's path is short, pytest's are long."""
    own = Path(tempfile.mkdtemp(prefix="cf-"))
    monkeypatch.setattr("tempfile.tempdir", str(own))
    found = lease.strangers
    monkeypatch.setattr(lease, "strangers", lambda: [folder for folder in found() if Path(folder).is_relative_to(own)])
    yield own
    shutil.rmtree(own)


def test_measurements_wait_for_each_other_whatever_their_temporary_folder_is(tmp_path: Path) -> None:
    both = []
    for name in "ab":
        (tmp_path / name).mkdir()
        both.append(python(HOLD, name, str(tmp_path / "lock"), env={**os.environ, "TMPDIR": str(tmp_path / name)}))
    results = [process.communicate() for process in both]
    spans = sorted(tuple(map(float, out.split())) for out, _ in results)
    assert spans[0][1] <= spans[1][0], "the two overlap"
    assert any("waits for" in err for _, err in results)
    usual = {name: value for name, value in os.environ.items() if name != "COLDPREFIX_MACHINE_LOCK"}
    out, _ = python("from coldprefix.process import locks; print(locks.MACHINE)", env=usual).communicate()
    assert out == "/tmp/coldprefix-measuring.lock\n", "one for all users"


def test_another_user_can_wait_for_the_lock_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "MACHINE", tmp_path / "lock")
    before = os.umask(0o077)
    try:
        with locks.exclusive("mine"):
            assert oct((tmp_path / "lock").stat().st_mode)[-3:] == "666"
            assert "mine (process" in (tmp_path / "lock").read_text()
    finally:
        os.umask(before)
    assert (tmp_path / "lock").read_text() == ""


def test_whatever_somebody_wrote_into_the_lock_is_only_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "MACHINE", tmp_path / "lock")
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
    monkeypatch.setattr(locks, "MACHINE", lock)
    with pytest.raises(ColdprefixError, match=rf"{lock}.*remove it"), locks.exclusive("x"):
        pass
    assert mine.read_text() == "precious" and oct(mine.stat().st_mode)[-3:] != "666"


# --- no server of another run beside a measurement --------------------------------------------------------------------------


@pytest.fixture
def runs() -> Iterator[tuple[int, int]]:
    """Two processes that stand for the Snakemake of two runs: servers belong to them."""
    processes = [subprocess.Popen(["sleep", "120"]) for _ in range(2)]
    yield processes[0].pid, processes[1].pid
    while STARTED:
        STARTED.pop().close()
    for process in processes:
        process.kill()
        process.wait()


def test_an_idle_server_of_another_run_is_ended_and_one_s_own_stays(
    runs: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(locks, "MACHINE", tmp_path / "lock")
    others, mine = (start(owner, tmp_path / f"log {owner}").server for owner in runs)
    theirs, own = STARTED[0].process_ids(), STARTED[1].process_ids()
    for started in (others, mine):
        assert started.folder.exists()
    with locks.exclusive("phase1/A/hit", runs[1]):
        STARTED[0].process.wait(10)  # this process is its parent here, and takes its end away
        assert gone(theirs) and not others.folder.exists()
        assert not gone(own) and mine.folder.exists()
    told = (
        f"coldprefix: phase1/A/hit: fake server of the run of process {runs[0]} was idle and has been ended; that run will start another\n"
    )
    assert capsys.readouterr().err == told
    with locks.exclusive("calibration"):  # which has no run: nobody's server is its own
        STARTED[1].process.wait(10)
        assert gone(own)


def test_a_server_is_ended_only_by_whoever_has_the_lock(runs: tuple[int, int], tmp_path: Path) -> None:
    """Before that, its run may be measuring with it."""
    own = start(runs[0], tmp_path / "log").server
    pids = own.process_ids()
    (tmp_path / "lock").touch()
    with open(tmp_path / "lock", "r+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        waiting = python(HOLD, "second", str(tmp_path / "lock"))
        time.sleep(1.0)
        own.check_alive("another run's measurement")
    _, err = waiting.communicate(timeout=10)
    assert waiting.returncode == 0 and "fake server of the run of process" in err, err
    STARTED[-1].process.wait(10)
    assert gone(pids)


def can_be_locked(path: Path) -> bool:
    deadline = time.monotonic() + 5
    with open(path, "r+") as handle:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                time.sleep(0.01)
    return False


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
def test_the_server_of_another_user_s_run_is_waited_for_without_the_lock(runs: tuple[int, int], alone: Path, tmp_path: Path) -> None:
    """It cannot be ended, and its run needs the lock to go on."""
    own = start(runs[0], tmp_path / "log").server
    os.chown(own.folder, 65534, 65534)
    assert lease.strangers() == [str(own.folder)] and lease.end_idle(None) == []
    program = HOLD.replace("lease.strangers = Path(sys.argv[2]), list", "real = Path(sys.argv[2]), lease.strangers").replace(
        "\nwith",
        f"\nlease.strangers = lambda: [found for found in real() if found.startswith({str(alone)!r})]; locks.STRANGERS_S = 0.1\nwith",
    )
    waiting = python(program, "ours", str(tmp_path / "lock"))
    time.sleep(1.5)
    assert waiting.poll() is None
    own.check_alive("idle")
    assert can_be_locked(tmp_path / "lock"), "between two looks of the one that waits"
    own.close()
    out, err = waiting.communicate(timeout=10)
    assert waiting.returncode == 0 and len(out.split()) == 2
    assert err == f"coldprefix: ours waits for the run of another user, which keeps a server in {own.folder}\n"


# --- one run at a time in a folder --------------------------------------------------------------------------------------------

FOLDER = (
    "import time; from pathlib import Path; from coldprefix.process.locks import hold_folder\n"
    "count = lambda: len(list(Path(sys.argv[1], '.snakemake', 'locks').iterdir()))\n"
    "before = count(); held = hold_folder(Path(sys.argv[1])); print(before - count(), flush=True); time.sleep(60)"
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
    assert first.communicate()[1] == "coldprefix: an earlier run in this folder was killed; its lock has been removed\n"
    third = python(FOLDER, str(folder))
    assert third.stdout is not None and third.stdout.readline() == "0\n" and lock.exists()
    for process in (second, third):
        process.kill()
        assert process.communicate()[1] == ""
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
