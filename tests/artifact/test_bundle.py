"""The tarball: the same bytes for the same commit, and nothing in it that is nobody's business."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT

from coldprefix.artifact import bundle
from coldprefix.errors import ColdprefixError


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    (root / "reference" / "cpu").mkdir(parents=True)
    (root / "README.md").write_text("words\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "reference" / "cpu" / "plan.json").write_text("{}\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-qm", "m")
    return root


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(root), *arguments], check=True)


def test_the_same_commit_gives_the_same_bytes_also_from_an_unpacked_tarball(checkout: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "coldprefix-1.tar.gz"
    digest = bundle.pack(checkout, target, {"ARTIFACT.pdf": b"%PDF"})
    assert hashlib.sha256(target.read_bytes()).hexdigest() == digest
    assert target.with_name(f"{target.name}.sha256").read_text() == f"{digest}  coldprefix-1.tar.gz\n"
    with tarfile.open(target) as tar:
        assert {entry.uid for entry in tar} | {entry.mtime for entry in tar} == {0}
        assert sorted(tar.getnames()) == [
            f"coldprefix-1/{name}" for name in ("ARTIFACT.pdf", "FILES", "README.md", "reference/cpu/plan.json", "run.sh")
        ]
        assert tar.getmember("coldprefix-1/run.sh").mode == 0o755
        tar.extractall(tmp_path / "unpacked", filter="data")
    for file in (tmp_path / "unpacked").rglob("*"):
        file.touch()
    again = tmp_path / "again" / target.name
    assert bundle.pack(tmp_path / "unpacked" / "coldprefix-1", again, {"ARTIFACT.pdf": b"%PDF"}) == digest


def test_what_is_not_committed_is_refused(checkout: Path, tmp_path: Path) -> None:
    (checkout / "README.md").write_text("others\n")
    with pytest.raises(ColdprefixError, match=r"not committed.*\n M README\.md"):
        bundle.pack(checkout, tmp_path / "a.tar.gz", {})
    assert not (tmp_path / "a.tar.gz").exists()
    with pytest.raises(ColdprefixError, match="no git checkout"):
        bundle.files_of(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('"command": ["/home/ada/models/x"]', "an absolute path of a machine, /home/ada"),
        (f"--model {'/'}root/x/models", f"an absolute path of a machine, {'/'}root/x"),
        ("HF_TOKEN=hf_" + "a" * 34, "a token of the Hub"),
        ("key sk-" + "a" * 40, "a key"),
    ],
)
def test_what_says_too_much_is_refused_with_its_file(text: str, told: str) -> None:
    with pytest.raises(ColdprefixError, match=rf"docs/a\.md: {told}"):
        bundle.check({"docs/a.md": text.encode()})


def test_words_for_places_are_no_paths() -> None:
    bundle.check({"a.json": b'"$COLDPREFIX_CACHE/llamacpp", "$HOME/work/x", "https://example.org/home/x"'})


def test_data_that_are_too_large_are_refused() -> None:
    with pytest.raises(ColdprefixError, match=r"21\.0 MB, the limit is 20"):
        bundle.check({"reference/cpu/raw": bytes(21_000_000)})


def test_nothing_in_this_checkout_says_too_much() -> None:
    bundle.check({name: (ROOT / name).read_bytes() for name in tracked()})


def tracked() -> list[str]:
    """Of a checkout, or of an unpacked tarball."""
    if (ROOT / bundle.LISTED).is_file():
        return bundle.files_of(ROOT)
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
