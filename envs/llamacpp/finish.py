"""What the lock cannot say: the binding is installed from the sdist that llama.cpp is built from, without compiling it again."""

from __future__ import annotations

from pathlib import Path

from coldprefix.engines.llamacpp.build import ensure_source
from coldprefix.setup.building import run
from coldprefix.setup.environments import installer_environment, uv


def finish(folder: Path, log: Path) -> None:
    """Install llama-cpp-python into the environment in ``folder``."""
    env = installer_environment("llamacpp")
    command: list[str | Path] = [uv(), "pip", "install", "--python", folder / "bin" / "python", "--no-deps", "--no-build-isolation"]
    command += ["-C", "cmake.args=-DLLAMA_BUILD=OFF", ensure_source()]
    run(command, log, "environment llamacpp", {**env, "PATH": f"{folder}/bin:{env['PATH']}"})
