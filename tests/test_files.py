"""Files are whole or not there, whoever else writes them at the same time and however the writer ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SAME_PATH

from coldprefix import files
from coldprefix.errors import ColdprefixError

SIZE = 4_000_000


def python(program: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", f"{SAME_PATH}from pathlib import Path; from coldprefix import files\n{program}"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_that_write_the_same_file_at_once_both_succeed(tmp_path: Path) -> None:
    """Both are in the middle of it together: each waits for a word after its first half."""
    path = tmp_path / "folder" / "plan.json"
    program = (
        "path, letter = Path({path!r}), {letter!r}.encode()\n"
        "with files.whole(path) as partial, open(partial, 'wb') as file:\n"
        f"    file.write(letter * {SIZE // 2}); file.flush(); print('half', flush=True); sys.stdin.readline()\n"
        f"    file.write(letter * {SIZE // 2})\n"
        "print(path.stat().st_size)"
    )
    both = [python(program.format(path=str(path), letter=letter)) for letter in "ab"]
    for process in both:
        assert process.stdout is not None and process.stdout.readline() == "half\n", process.communicate()
    assert not path.exists() and len(list(path.parent.iterdir())) == 2
    for letter, process in zip("ab", both, strict=True):
        out, err = process.communicate("go\n", timeout=20)
        assert process.returncode == 0 and out == f"{SIZE}\n", err
        assert path.read_bytes() == letter.encode() * SIZE, "whole, and the last one's"
    assert [found.name for found in path.parent.iterdir()] == ["plan.json"]


def test_what_a_killed_process_left_is_removed_by_the_next_writer_and_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    killed = python(f"with files.whole(Path({str(path)!r})) as partial:\n    partial.touch(); print('x', flush=True); sys.stdin.readline()")
    assert killed.stdout is not None and killed.stdout.readline() == "x\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    left = tmp_path / f".x.json.{socket.gethostname()}.{killed.pid}.part"
    living, elsewhere = (
        left.with_name(f".x.json.{socket.gethostname()}.{os.getppid()}.part"),
        left.with_name(f".x.json.another.{killed.pid}.part"),
    )
    other = left.with_name(f".y.json.{socket.gethostname()}.{killed.pid}.part")
    for kept in (living, elsewhere, other):
        kept.touch()
    assert left.exists()
    files.write_json(path, {"a": 1})
    assert files.read_json(path) == {"a": 1}
    assert set(tmp_path.iterdir()) == {path, living, elsewhere, other}, "a process of another machine may live"


def test_a_file_that_fails_half_way_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.whole(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_with_the_file(tmp_path: Path) -> None:
    """/dev/full takes no byte."""
    path = tmp_path / "x.json"
    files.partial_of(path).symlink_to("/dev/full")
    with pytest.raises(ColdprefixError, match=rf"^there is no space left on the disk for {path}; make room and run snakemake again$"):
        files.write_json(path, {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_another_error_of_the_disk_is_not_called_a_full_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_text(tmp_path / "folder", "")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\x00"])
def test_a_record_that_is_none_is_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ColdprefixError, match=r"cannot read .*x\.json: .* Do this\."):
        files.read_json(tmp_path / "x.json", "Do this.")
