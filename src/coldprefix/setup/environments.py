"""Environments: a folder ``<cache>/environments/<name>-<key>`` whose key is a hash of everything that decides its content (the lock file,
the Python version, the platform). ``envs/<name>/.venv`` is a link to it. What a lock cannot say is done by ``envs/<name>/finish.py``.

Standard library only: this module runs under the system's Python before any environment exists.
"""

from __future__ import annotations

import os
import platform
import re
import runpy
import shutil
import sys
import time
from pathlib import Path

from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of
from coldprefix.setup import building
from coldprefix.setup.building import finish, finished, locked, run, say, without_tokens

PYTHON_VERSION = "3.11"  # of the environments; uv finds it or downloads it. The CPU build of torch is locked for it.


def installer_environment(name: str) -> dict[str, str]:
    """Environment for uv and pip.

    uv does not read pip's settings. Where this machine keeps wheels for pip (PIP_FIND_LINKS), uv is shown the same
    place; elsewhere CPU torch comes from PyTorch's own index, which uv knows by the name "cpu".
    """
    env = without_tokens()
    env.pop("VIRTUAL_ENV", None)
    env.pop("PYTHONPATH", None)
    env["UV_NO_PROGRESS"] = "1"
    env["UV_COMPILE_BYTECODE"] = "1"  # vLLM imports in 4 s instead of 18
    if _has_cpu_torch(name):
        if "UV_FIND_LINKS" not in env and env.get("PIP_FIND_LINKS"):
            env["UV_FIND_LINKS"] = ",".join(env["PIP_FIND_LINKS"].split())
        if "UV_FIND_LINKS" not in env:
            env.setdefault("UV_TORCH_BACKEND", "cpu")
    return env


def _has_cpu_torch(name: str) -> bool:
    """Is the environment locked to the CPU build of torch?"""
    lock = building.ROOT / "envs" / name / "requirements.txt"
    return lock.is_file() and re.search(r"^torch==\S+\+cpu\b", lock.read_text(), re.M) is not None


def bootstrap() -> Path:
    """The environment with uv and pip that builds all others. Returns its folder."""
    lock = building.ROOT / "envs" / "bootstrap" / "requirements.txt"
    key = sha256_of(lock.read_bytes() + sys.version.encode() + platform.machine().encode())[:16]
    folder = building.CACHE / "environments" / f"bootstrap-{key}"
    if finished(folder):
        return folder
    with locked(folder.with_suffix(".lock")):
        if finished(folder):
            return folder
        started = time.monotonic()
        say(f"environment bootstrap: installing into {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        log = building.CACHE / "logs" / f"{folder.name}.log"
        run([sys.executable, "-m", "venv", folder], log, "environment bootstrap")
        pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
        run([*pip, "install", "--no-deps", "--require-hashes", "-r", lock], log, "environment bootstrap")
        finish(folder, started, {"lock": sha256_of(lock.read_bytes())})
    return folder


def uv() -> Path:
    """The pinned uv."""
    return bootstrap() / "bin" / "uv"


def environment_key(name: str) -> str:
    """Hash of everything that decides what environment ``name`` contains: 64 hex digits."""
    folder = building.ROOT / "envs" / name
    files = [file for file in sorted(folder.glob("*")) if file.suffix == ".txt" or file.name == "finish.py"]
    parts = [part for file in files for part in (file.name.encode(), file.read_bytes())]
    return sha256_of(b"\0".join([*parts, PYTHON_VERSION.encode(), platform.machine().encode()]))


def ensure_environment(name: str) -> Path:
    """Make environment ``envs/<name>`` exist and return its folder; instant when it is there already.

    Raises:
        ColdprefixError: an unknown name, or the installation failed.
    """
    lock = building.ROOT / "envs" / name / "requirements.txt"
    if not lock.is_file():
        raise ColdprefixError(f"there is no environment named {name!r}: {lock} does not exist")
    folder = building.CACHE / "environments" / f"{name}-{environment_key(name)[:16]}"
    if not finished(folder) or not (folder / "bin" / "python").exists():
        with locked(folder.with_suffix(".lock")):
            if not finished(folder) or not (folder / "bin" / "python").exists():
                _install_environment(name, lock, folder)
    _link(building.ROOT / "envs" / name / ".venv", folder)
    if name == "driver":
        _link(building.ROOT / ".venv", folder)
    return folder


def _install_environment(name: str, lock: Path, folder: Path) -> None:
    started = time.monotonic()
    say(f"environment {name}: installing into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    log = building.CACHE / "logs" / f"{folder.name}.log"
    env = installer_environment(name)
    what = f"environment {name}"
    run([uv(), "venv", "--python", PYTHON_VERSION, folder], log, what, env)
    python = folder / "bin" / "python"
    # The lock is complete, and --no-deps keeps out what was taken out of it on purpose.
    run([uv(), "pip", "install", "--python", python, "--no-deps", "--require-hashes", "-r", lock], log, what, env)
    rest = lock.with_name("finish.py")
    if rest.is_file():
        runpy.run_path(str(rest))["finish"](folder, log)
    finish(folder, started, {"lock": sha256_of(lock.read_bytes())})


def _link(link: Path, target: Path) -> None:
    """Point ``link`` at ``target``, atomically."""
    if link.is_symlink() and link.readlink() == target:
        return
    if link.exists() and not link.is_symlink():
        raise ColdprefixError(f"{link} is not a link made by coldprefix; move it away and run again")
    temporary = link.with_name(f"{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
