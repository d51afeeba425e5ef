"""A reference: a run that is kept in the repository, as raw data and as what was made from them.

reference/NAME/
  results/    plan.json, raw/, setup/, preflight/, calibration and peers as they were measured: no rule of the workflow writes here
  expected/   tables, pages and figures as this run made them
  manifest.json   the sha256 of every file of both
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldprefix.data.raw import sealed
from coldprefix.errors import ColdprefixError
from coldprefix.files import read_json, sha256_of_file, write_json
from coldprefix.setup.building import ROOT

FOLDER = ROOT / "reference"
# Below results/: what was measured, and what is made from it. A folder stands for all in it.
MEASURED = (
    "plan.json",
    "raw",
    "setup",
    "preflight",
    "calibration",
    "peers/rounds.parquet",
    "peers/rounds.parquet.sha256",
    "floor/card.json",
)
MADE = (
    *(f"{table}.parquet{seal}" for table in ("summary", "self_check", "claims") for seal in ("", ".sha256")),
    *("summary.txt", "claims.md", "peers/peers.parquet", "peers/peers.parquet.sha256", "peers/peers.txt"),
)
ANEW = "Get the artifact anew, or `git checkout reference`."


@dataclass(frozen=True)
class Reference:
    """A shipped run.

    Attributes:
        folder: reference/NAME.
    """

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def expected(self) -> Path:
        return self.folder / "expected"

    @property
    def plan(self) -> dict[str, Any]:
        """results/plan.json: see `study.plan.Plan.write`. Raises ColdprefixError if it cannot be read."""
        return read_json(self.results / "plan.json", ANEW)

    def check(self) -> list[str]:
        """What is not as it was shipped: a line for each file, empty if all is. Raises ColdprefixError if there is no manifest."""
        shipped = read_json(self.folder / "manifest.json", ANEW)
        lines = []
        for name, digest in shipped.items():
            file = self.folder / name
            if not file.is_file():
                lines.append(f"{name} is missing")
            elif sha256_of_file(file) != digest:
                lines.append(f"{name} is not the file that was shipped (its sha256 differs from manifest.json)")
        return lines + [f"{name} was not shipped" for name in _files(self.folder) if name not in shipped]


def references(folder: Path = FOLDER) -> list[Reference]:
    """All that are shipped, by name."""
    return [Reference(file.parent) for file in sorted(folder.glob("*/manifest.json"))]


def named(name: str, folder: Path = FOLDER) -> Reference:
    """Raises ColdprefixError if there is no such reference; names those that there are."""
    found = {reference.name: reference for reference in references(folder)}
    if name not in found:
        raise ColdprefixError(f"there is no reference {name!r} below {folder}; there are: {', '.join(found) or 'none'}")
    return found[name]


def keep(run: Path, target: Path, words: Mapping[str, str] | None = None) -> Reference:
    """Make a reference of a finished run: the folder in which Snakemake ran, with results/ and figures/.

    Args:
        words: by folders of the machine that measured what stands in their place in its records, which are sealed again; rows stay as
            they are. Of records that an earlier version wrote: today's name no folder of a machine.

    Raises:
        ColdprefixError: the run is not finished, or the reference exists.
    """
    if target.exists():
        raise ColdprefixError(f"{target} exists; a reference is never overwritten. Delete it first if it is to be replaced.")
    plan = read_json(run / "results" / "plan.json")
    partial = target.with_name(f".{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for cell in plan["cells"]:
            for name in ("requests.parquet", "provenance.json"):
                _copy(run / "results" / "raw" / cell / name, partial / "results" / "raw" / cell / name, words=words)
        for name in MEASURED:
            if name != "raw":
                _copy(
                    run / "results" / name,
                    partial / "results" / name,
                    may_lack=name.startswith(("peers", "calibration", "floor")),
                    words=words,
                )
        for name in MADE:
            _copy(run / "results" / name, partial / "expected" / "results" / name, may_lack=name.startswith("peers"))
        for file in sorted((run / "figures").glob("*")):
            _copy(file, partial / "expected" / "figures" / file.name)
        write_json(partial / "manifest.json", {name: sha256_of_file(partial / name) for name in _files(partial)})
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Reference(target)


def _copy(source: Path, target: Path, may_lack: bool = False, words: Mapping[str, str] | None = None) -> None:
    if source.is_dir():
        for file in sorted(source.iterdir()):
            _copy(file, target / file.name, words=words)
    elif source.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        if words and source.suffix == ".json":
            _write_with(words, source, target)
        else:
            shutil.copyfile(source, target)
    elif not may_lack:
        raise ColdprefixError(f"{source} is missing: the run is not finished, or `snakemake` was not asked for all of it")


def _write_with(words: Mapping[str, str], source: Path, target: Path) -> None:
    """A record with words in the place of folders; one that was sealed is sealed again."""
    text = source.read_text()
    for folder, word in words.items():
        text = text.replace(f"{folder}/", f"{word}/")
    record = json.loads(text)
    write_json(target, sealed(record) if "record_sha256" in record else record)


def _files(folder: Path) -> Iterator[str]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name not in ("manifest.json", "README.md"):
            yield file.relative_to(folder).as_posix()
