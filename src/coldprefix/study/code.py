"""What of the code a result depends on: whole folders, by their syntax trees.

A comment, a docstring or a reformatting measures nothing; a changed statement in a folder that a program imports from does.
tests/study/test_code.py walks what each program really imports and asserts that all of it is covered.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from coldprefix.files import sha256_of

SOURCE = Path(__file__).resolve().parents[1]
SCRIPTS = SOURCE.parents[1] / "workflow" / "scripts"
GROUND = ("*.py", "process", "data")
ENGINES = ("setup", "engines/*.py", "engines/*.jinja", "measure/*.py", "measure/edits/__init__.py")
SUMMARIES = (*GROUND, *ENGINES, "analysis")
REPLAY = (
    "__init__.py",
    "analyse.py",
    "blocks.py",
    "breaks.py",
    "prompts.py",
    "reading.py",
    "replay.py",
    "tokens.py",
    "tree.py",
    "chatml.jinja",
)
STUDY = (*SUMMARIES, "engines", "measure", "models", "study")

# program of workflow/scripts: what it may import, as folders and files of src/coldprefix
PROGRAMS: dict[str, tuple[str, ...]] = {
    "measure": (*GROUND, *ENGINES, "engines/{engine}", "measure/edits/{states}.py"),
    "aggregate": (*SUMMARIES, "engines"),
    "check_claims": (*STUDY, "claims"),
    "plot": (*STUDY, "figures", "instrument"),
    "build_report": (*STUDY, "figures", "report", "advice"),
    "compare_runs": (*STUDY, "figures"),
    "advise": (*STUDY, "figures", "advice"),
    "trace": (*STUDY, "figures", "traces"),
    "replay_trace": (*GROUND, "setup", "engines", "measure", *(f"traces/{name}" for name in REPLAY)),
    "measure_load": (*GROUND, "setup", "engines", "measure", "load/__init__.py", "load/clients.py"),
    "draw_load": (*STUDY, "figures", "load"),
    "calibrate": (*SUMMARIES, "engines/llamacpp", "engines/vllm", "instrument"),
    "time_peers": (*SUMMARIES, "engines/llamacpp", "measure/edits/miss.py", "instrument"),
    "compare_peers": (*SUMMARIES, "engines/llamacpp", "measure/edits/miss.py", "instrument"),
}


def covered(program: str, **names: str) -> list[Path]:
    """The files that the digest of a program covers, beside its own; ``names`` fills in the engine, and the states ("hit,miss")."""
    found: set[Path] = set()
    states = names.pop("states", "").split(",")
    for pattern in dict.fromkeys(pattern.format(**names, states=state) for pattern in PROGRAMS[program] for state in states):
        path = SOURCE / pattern
        files = path.rglob("*") if path.is_dir() else path.parent.glob(path.name)
        found |= {file for file in files if file.is_file() and "__pycache__" not in file.parts}
    return sorted(found)


@cache
def digest(program: str, **names: str) -> str:
    """32 hex digits over what the program's code says."""
    files = covered(program, **names)
    parts = [_meaning(SCRIPTS / f"{program}.py")]
    parts += [part for file in files for part in (file.relative_to(SOURCE).as_posix(), _meaning(file))]
    return sha256_of("\0".join(parts).encode())[:32]


@cache
def _meaning(file: Path) -> str:
    """A module without what does nothing: comments, layout, docstrings, the package's version. Other files as they are."""
    content = file.read_bytes()
    return _meaning_of(content) if file.suffix == ".py" else sha256_of(content)


@cache
def _meaning_of(module: bytes) -> str:
    tree = ast.parse(module)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [statement for statement in node.body if not _says_nothing(statement)] or [ast.Pass()]
    return sha256_of(ast.dump(tree).encode())


def _says_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)] == ["__version__"]
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
