"""The tarball that is submitted: the same inputs give the same bytes."""

from __future__ import annotations

import gzip
import io
import re
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of, write_bytes, write_text

LIMIT_MB = 20  # of the shipped data
LISTED = "FILES"  # in the tarball: what belongs to it, since it has no git
# What a published file must not hold. Paths of a machine are told by their first folder.
TOLD = {
    "an absolute path of a machine": re.compile(rb"(?<![\w.$}])/(?:root|home|work|Users|mnt|opt/[a-z]+)/[\w.-]+"),
    "a token of the Hub": re.compile(rb"\bhf_[A-Za-z0-9]{20,}"),
    "a key": re.compile(rb"\b(?:sk|ghp|github_pat)[-_][A-Za-z0-9_]{20,}"),
}
# Where the container has it, and a program that Debian has there.
EXAMPLES = (b"/home/coldprefix", b"/opt/coldprefix")


def files_of(root: Path) -> list[str]:
    """The files of a checkout (tracked by git), or of an unpacked tarball.

    Raises:
        ColdprefixError: it is neither, or something is changed and not committed: then nobody could make the same tarball.
    """
    if (root / LISTED).is_file():
        return (root / LISTED).read_text().split("\n")[:-1]
    try:
        command = ["git", "-C", str(root)]
        changed = subprocess.run([*command, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
        listed = subprocess.run([*command, "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise ColdprefixError(
            f"{root} is no git checkout and no unpacked artifact, so it is not known what belongs to it: {error}"
        ) from None
    if changed:
        raise ColdprefixError(
            f"there are changes that are not committed, so nobody could make this artifact again:\n{changed.rstrip()}\nCommit or remove them."
        )
    return sorted(name for name in listed.split("\0") if name)


def pack(root: Path, target: Path, more: Mapping[str, bytes]) -> str:
    """Write ``target`` (.tar.gz) and its sha256 beside it.

    Args:
        more: further files by name.

    Returns:
        The sha256.

    Raises:
        ColdprefixError: a file says more than it should, or the shipped data are larger than 20 MB.
    """
    names = files_of(root)
    contents = {name: (root / name).read_bytes() for name in names} | dict(more)
    contents[LISTED] = "".join(f"{name}\n" for name in names).encode()
    check(contents)
    folder = target.name.removesuffix(".tar.gz")
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(contents):
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(contents[name])
            entry.mode = 0o755 if contents[name].startswith(b"#!") else 0o644
            tar.addfile(entry, io.BytesIO(contents[name]))
    data = buffer.getvalue()
    write_bytes(target, data)
    write_text(target.with_name(f"{target.name}.sha256"), f"{sha256_of(data)}  {target.name}\n")
    return sha256_of(data)


def check(contents: Mapping[str, bytes]) -> None:
    """Raises ColdprefixError for a token, a path of a machine, or more than 20 MB of data."""
    found = []
    for name, data in contents.items():
        if name.startswith("tests/"):  # they make such things up
            continue
        for what, pattern in TOLD.items():
            hits = [hit.group() for hit in pattern.finditer(data) if not hit.group().startswith(EXAMPLES)]
            found += [f"  {name}: {what}, {hits[0].decode(errors='replace')}"] if hits else []
    if found:
        raise ColdprefixError("the artifact would say more than it should:\n" + "\n".join(found))
    size = sum(len(data) for name, data in contents.items() if name.startswith("reference/")) / 1e6
    if size > LIMIT_MB:
        raise ColdprefixError(f"the shipped data have {size:.1f} MB, the limit is {LIMIT_MB}; keep fewer or smaller references")
