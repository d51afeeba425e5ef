"""What makes a result stale: all code that its program imports, and nothing that changes no result."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

from coldprefix.study import code, registry

PACKAGE = ROOT / "src" / "coldprefix"
CELL = {"engine": "llamacpp", "states": "miss"}


# --- what is said, not how ----------------------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, which the digests are of."""
    shutil.copytree(PACKAGE, tmp_path / "coldprefix", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "SOURCE", tmp_path / "coldprefix")
    forget()
    yield tmp_path / "coldprefix"
    forget()


def forget() -> None:
    code.digest.cache_clear()
    code._meaning.cache_clear()


def digests() -> dict[str, str]:
    forget()
    return {program: code.digest(program, **CELL) for program in code.PROGRAMS}


def changed(path: Path, edit: Callable[[str], str]) -> set[str]:
    """The programs whose digest is another one after an edit, which is taken back."""
    before, text = digests(), path.read_text()
    path.write_text(edit(text))
    assert path.read_text() != text
    after = digests()
    path.write_text(text)
    return {program for program in before if before[program] != after[program]}


def without_comments(text: str) -> str:
    return ast.unparse(ast.parse(text)) + "\n"


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text + "\n# a comment\n",
        lambda text: text.replace("\n\n", "\n\n\n"),
        without_comments,
        lambda text: text.replace('"""', '"""Other words: ', 1),
        lambda text: text.replace('    """', '    """Other words: ', 1),
    ],
    ids=["a comment", "empty lines", "all comments and the formatting", "a module's docstring", "a function's docstring"],
)
def test_what_changes_no_result_changes_no_digest(source: Path, edit: Callable[[str], str]) -> None:
    assert changed(source / "measure" / "protocol.py", edit) == set()


def test_a_version_number_measures_nothing(source: Path) -> None:
    assert changed(source / "__init__.py", lambda text: text.replace('"0.', '"9.')) == set()
    assert changed(source / "__init__.py", lambda text: f"{text}\nOTHER = 1\n")


ENGINES = {"measure", "aggregate", "check_claims", "plot", "build_report", "compare_runs", "calibrate", "time_peers", "compare_peers"}


@pytest.mark.parametrize(
    ("file", "old", "new", "programs"),
    [
        ("measure/protocol.py", "settle_ms / 1e3", "settle_ms / 2e3", ENGINES),
        ("process/supervise.py", "time.sleep(0.01)", "time.sleep(0.02)", set(code.PROGRAMS)),
        ("engines/chatml.jinja", "im_start", "im_end", ENGINES),
        ("engines/llamacpp/server.py", "grace_s=5.0", "grace_s=6.0", ENGINES),
        ("measure/edits/miss.py", "b + parts.q", "q + parts.b", {"measure", "time_peers", "check_claims"}),
        (
            "analysis/statistics.py",
            "CONFIDENCE = 0.95",
            "CONFIDENCE = 0.9",
            set(code.PROGRAMS) - {"measure", "replay_trace", "measure_load"},
        ),
        ("figures/style.py", "GROUP = 0.76", "GROUP = 0.7", {"plot", "build_report", "compare_runs"}),
    ],
)
def test_a_changed_statement_changes_the_digests_of_the_programs_that_run_it(
    source: Path, file: str, old: str, new: str, programs: set[str]
) -> None:
    assert changed(source / file, lambda text: text.replace(old, new)) >= programs


def test_an_edit_or_an_engine_of_others_measures_no_cell(source: Path) -> None:
    for file in (
        "measure/edits/hit.py",
        "engines/vllm/server.py",
        "study/plan.py",
        "figures/style.py",
        "analysis/statistics.py",
        "claims/data.py",
    ):
        assert "measure" not in changed(source / file, lambda text: f"{text}\nOTHER = 1\n"), file


def test_a_file_that_is_renamed_or_new_is_noticed(source: Path) -> None:
    before = digests()
    (source / "measure" / "load.py").rename(source / "measure" / "loads.py")
    assert digests()["measure"] != before["measure"]
    (source / "measure" / "loads.py").rename(source / "measure" / "load.py")
    assert digests() == before
    (source / "process" / "new.py").write_text("")
    assert digests()["measure"] != before["measure"]


# --- nothing is forgotten -------------------------------------------------------------------------------------------------------


@cache
def file_of(module: str) -> Path | None:
    """The file of a module of coldprefix, None if it is none (a name in one, or another's)."""
    first, *parts = module.split(".")
    if first != "coldprefix":
        return None
    path = PACKAGE.joinpath(*parts)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def imports(file: Path) -> frozenset[Path]:
    """The files that a file imports, wherever in it, with the packages that they are in."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports are not followed here"
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            found |= {own for i in range(1, len(parts) + 1) if (own := file_of(".".join(parts[:i])))}
    return frozenset(found)


def by_name(file: Path, names: dict[str, str]) -> set[Path]:
    """What a file imports by a name that it is told: the engine and the edit of a cell, or all that the registry lists."""
    engines = [names["engine"]] if "engine" in names else registry.ENGINES
    edits = names["states"].split(",") if "states" in names else registry.EDITS
    own = {
        "engines/contract.py": [f"coldprefix.engines.{engine}.engine" for engine in engines],
        "measure/edits/__init__.py": [f"coldprefix.measure.edits.{edit}" for edit in edits],
        "study/registry.py": [f"coldprefix.models.{source}" for source in registry.SOURCES],
        "claims/checks/__init__.py": [f"coldprefix.claims.checks.{check}" for check in registry.CHECKS],
    }
    place = file.relative_to(ROOT).as_posix()
    modules = own.get(place.removeprefix("src/coldprefix/"), [])
    if place == "workflow/scripts/plot.py":
        modules = [f"coldprefix.figures.{figure}" for figure in registry.FIGURES]
    found = [file_of(module) for module in modules]
    assert None not in found, modules
    return {path for path in found if path}


def reached(program: str, names: dict[str, str]) -> dict[Path, list[str]]:
    """The files of coldprefix that a program imports, each with the way to it."""
    ways: dict[Path, list[str]] = {}
    new: list[tuple[Path, list[str]]] = [(ROOT / "workflow" / "scripts" / f"{program}.py", [])]
    while new:
        file, way = new.pop()
        if file in ways:
            continue
        ways[file] = [*way, file.relative_to(ROOT).as_posix()]
        new += [(path, ways[file]) for path in imports(file) | by_name(file, names)]
    return {file: way for file, way in ways.items() if file.is_relative_to(PACKAGE)}


def jobs() -> Iterator[tuple[str, dict[str, str]]]:
    for program in code.PROGRAMS:
        if program == "measure":
            yield from (
                ("measure", {"engine": engine, "states": state})
                for engine in registry.ENGINES
                for state in (*registry.EDITS, "hit,miss,cold")
            )
        elif program in ("time_peers", "compare_peers"):  # misses of llama.cpp
            yield program, CELL
        else:
            yield program, {}


@pytest.mark.parametrize(("program", "names"), list(jobs()))
def test_all_that_a_program_imports_is_covered(program: str, names: dict[str, str]) -> None:
    covered = set(code.covered(program, **names))
    missing = {file.relative_to(PACKAGE).as_posix(): way for file, way in reached(program, names).items() if file not in covered}
    assert not missing, "\n".join(f"{file}: {' > '.join(way)}" for file, way in sorted(missing.items()))


def test_the_imports_are_followed_where_they_lead() -> None:
    """So that the test above is about something."""
    found = {file.relative_to(PACKAGE).as_posix() for file in reached("measure", CELL)}
    assert {"engines/llamacpp/binding.py", "process/in_process.py", "measure/edits/miss.py", "data/__init__.py"} <= found
    assert not any(name.startswith(("study", "engines/vllm", "models", "analysis", "figures")) for name in found)
    assert {"figures/fig5_batch_size.py"} <= {file.relative_to(PACKAGE).as_posix() for file in reached("plot", {})}


@pytest.mark.parametrize(("engine", "other"), [("vllm", "llamacpp"), ("llamacpp", "vllm")])
def test_of_another_engine_nothing_is_covered(engine: str, other: str) -> None:
    folders = {path.relative_to(PACKAGE).as_posix().rpartition("/")[0] for path in code.covered("measure", engine=engine, states="hit")}
    assert f"engines/{engine}" in folders and not any(folder.startswith(f"engines/{other}") for folder in folders)


def test_every_program_of_the_workflow_with_a_digest_is_known() -> None:
    asked = {
        part.split('"')[1]
        for rules in (ROOT / "workflow" / "rules").glob("*.smk")
        for part in rules.read_text().split("digest(")[1:]
        if '"' in part[:2]
    }
    assert asked == set(code.PROGRAMS) - {"measure"}
    assert all((ROOT / "workflow" / "scripts" / f"{program}.py").is_file() for program in code.PROGRAMS)


def test_a_program_s_own_statements_count(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(code.SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "SCRIPTS", tmp_path / "scripts")
    assert changed(tmp_path / "scripts" / "measure.py", lambda text: f"{text}\nOTHER = 1\n") == {"measure"}
    assert changed(tmp_path / "scripts" / "measure.py", lambda text: f"{text}\n# a comment\n") == set()
