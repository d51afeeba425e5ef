"""The shape of the source tree: imports point one way, files are short, and tests lie where what they test does."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "src" / "coldprefix"
MODULES = sorted(PACKAGE.rglob("*.py"))
# From the ground up: a module imports from its own layer and from those before it.
LAYERS = (
    *(
        "ground",
        "process",
        "setup",
        "engines",
        "models",
        "data",
        "measure",
        "probe",
        "analysis",
        "study",
        "claims",
        "instrument",
        "figures",
        "advice",
        "traces",
        "load",
    ),
    "report",
    "artifact",
)
LINES = 300


def parts(file: Path) -> tuple[str, ...]:
    """("engines", "llamacpp", "log") of engines/llamacpp/log.py; a package is named like its folder."""
    names = file.relative_to(PACKAGE).with_suffix("").parts
    return names[:-1] if names[-1] == "__init__" else names


def layer(names: tuple[str, ...]) -> str:
    """The folder that a module is in; what lies beside the folders is the ground."""
    return names[0] if names and (PACKAGE / names[0]).is_dir() else "ground"


def imported(file: Path, inside_functions: bool = True) -> Iterator[tuple[str, ...]]:
    """The modules of coldprefix that a file names in its imports."""
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree) if inside_functions else tree.body:
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "coldprefix":
                path = PACKAGE.joinpath(*rest)
                is_module = path.with_suffix(".py").is_file() or path.is_dir()
                yield tuple(rest if is_module else rest[:-1])


def test_every_folder_is_a_layer() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(LAYERS) - {"ground"}


@pytest.mark.parametrize("name", LAYERS)
def test_imports_point_down(name: str) -> None:
    """Inside functions, too: an import that is made later is one all the same."""
    files = [file for file in MODULES if layer(parts(file)) == name]
    assert files
    above = set(LAYERS[LAYERS.index(name) + 1 :])
    wrong = [f"{'/'.join(parts(file))} imports {'.'.join(found)}" for file in files for found in imported(file) if layer(found) in above]
    assert not wrong, wrong


def test_engines_do_not_know_each_other() -> None:
    """And what they share knows none of them, but by the name that it is told."""
    engines = {path.name for path in (PACKAGE / "engines").iterdir() if (path / "engine.py").exists()}
    assert len(engines) >= 2
    for file in (file for file in MODULES if parts(file)[:1] == ("engines",)):
        own = parts(file)[1:2]
        named = {found[1] for found in imported(file) if found[:1] == ("engines",) and len(found) > 1} & engines
        assert named <= set(own), f"{file} imports {named}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {parts(file): set(imported(file, inside_functions=False)) for file in MODULES}
    done: set[tuple[str, ...]] = set()

    def visit(module: tuple[str, ...], way: list[tuple[str, ...]]) -> None:
        assert module not in way, " > ".join(".".join(name) for name in [*way, module])
        if module not in done:
            for other in graph.get(module, set()) - {module}:
                visit(other, [*way, module])
            done.add(module)

    for module in graph:
        visit(module, [])


def test_no_file_is_longer_than_300_lines() -> None:
    files = [path for path in (ROOT / "src").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    long = {str(path.relative_to(ROOT)): count for path in files if (count := len(path.read_bytes().splitlines())) > LINES}
    assert not long


def test_tests_mirror_the_source() -> None:
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    of_no_folder = {Path(), Path("faults"), Path("slurm"), Path("workflow")}
    assert folders > of_no_folder
    missing = [str(folder) for folder in folders - of_no_folder if not (PACKAGE / folder).is_dir()]
    assert not missing
