"""Builds llama.cpp once, from the source that the sdist of llama-cpp-python carries: llama-server, llama-bench, llama-quantize, and the
library that the binding loads, too. Standard library only: it runs under the system's Python."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of
from coldprefix.setup import building
from coldprefix.setup.building import check_prerequisites, finish, finished, locked, run, say
from coldprefix.setup.environments import bootstrap, ensure_environment, installer_environment

FLAGS = (
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
CUDA_FLAGS = ("-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native")
FASTER = Path(__file__).with_name("faster.cmake")
TARGETS = ("llama-server", "llama-bench", "llama-quantize")
CANDIDATES = ("c++", "g++", "clang++", "/usr/bin/g++", "/usr/bin/clang++")
NVCC_VARIABLES = ("CUDAHOSTCXX", "NVCC_CCBIN", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")


def _sdist_pin() -> tuple[str, str]:
    """(requirement, sha256) of the llama-cpp-python sdist."""
    text = (building.ROOT / "envs" / "llamacpp" / "sdist.txt").read_text()
    match = re.search(r"^(llama-cpp-python==\S+) --hash=sha256:([0-9a-f]{64})$", text, re.M)
    if not match:
        raise ColdprefixError("envs/llamacpp/sdist.txt must hold one line: llama-cpp-python==VERSION --hash=sha256:...")
    return match[1], match[2]


def ensure_source() -> Path:
    """Download and unpack the llama-cpp-python sdist; it carries llama.cpp in vendor/. Returns the unpacked folder."""
    requirement, sha256 = _sdist_pin()
    folder = building.CACHE / "sources" / f"llama-cpp-python-{sha256[:16]}"
    if finished(folder):
        return folder / "source"
    with locked(folder.with_suffix(".lock")):
        if not finished(folder):
            started = time.monotonic()
            say(f"source of {requirement}: downloading (77 MB)")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            log = building.CACHE / "logs" / f"{folder.name}.log"
            pin = folder / "pin.txt"
            pin.write_text(f"{requirement} --hash=sha256:{sha256}\n")
            python = bootstrap() / "bin" / "python"
            pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--require-hashes"]
            env = {**installer_environment("bootstrap"), "PATH": f"{python.parent}:{os.environ['PATH']}"}
            options = ["--no-binary", ":all:", "--no-build-isolation"]
            run([*pip, *options, "-d", folder, "-r", pin], log, f"download of {requirement}", env)
            (archive,) = folder.glob("*.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            archive.unlink()
            (unpacked,) = (p for p in folder.iterdir() if p.is_dir())
            unpacked.rename(folder / "source")
            finish(folder, started, {"requirement": requirement, "sha256": sha256})
    return folder / "source"


def source_key() -> str:
    """sha256 of the source that llama.cpp is built from."""
    return _sdist_pin()[1]


def built_from(accelerator: str) -> tuple[str, ...]:
    """What decides the build, on one machine: source, flags and the statements of FASTER. No path: a moved checkout builds nothing again."""
    statements = re.sub(r"(?m)^#.*\n", "", FASTER.read_text())
    return (source_key(), *_flags(accelerator), sha256_of(statements.encode()))


def _flags(accelerator: str) -> tuple[str, ...]:
    return FLAGS + (CUDA_FLAGS if accelerator == "cuda" else ())


def _cpu_features() -> str:
    """The instruction sets that -march=native (GGML_NATIVE) compiles for."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    match = re.search(r"^(flags|Features)\s*:(.*)$", text, re.M)
    return " ".join(sorted(match[2].split())) if match else platform.processor()


def ensure_build(accelerator: str) -> Path:
    """Build llama.cpp for ``accelerator`` ("cpu" or "cuda") once; returns the folder with llama-server and the libraries.

    The key holds the source, the flags, the programs, the compiler and the CPU's instruction sets, since the build is native.

    Raises:
        ColdprefixError: a missing compiler or CUDA toolkit, or the build failed.
    """
    check_prerequisites()
    compiler = os.environ.get("CXX") or next(c for c in ("c++", "g++", "clang++") if shutil.which(c))
    version = _version_of(compiler)
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
        compiler = sharing_compiler(list(dict.fromkeys([compiler, *CANDIDATES])))
        version += f"host compiler {compiler} {_version_of(compiler)}"
    for name in ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS"):  # CMake takes them up
        version += f" {name}={os.environ[name]}" if name in os.environ else ""
    key = sha256_of("\0".join([*built_from(accelerator), *TARGETS, version, _cpu_features()]).encode())
    folder = building.CACHE / "llamacpp" / f"{accelerator}-{key[:16]}"
    if finished(folder):
        return folder
    with locked(folder.with_suffix(".lock")):
        if not finished(folder):
            _build(accelerator, folder, compiler, {"source_sha256": source_key(), "compiler": version, "flags": list(_flags(accelerator))})
    return folder


def _version_of(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def sharing_compiler(candidates: Sequence[str]) -> str:
    """The first C++ compiler of ``candidates`` whose libraries share the system's libstdc++.

    A libggml-cuda that holds a libstdc++ of its own, as some images' compilers link it, crashes the program that loads it beside numpy.

    Raises:
        ColdprefixError: there is none.
    """
    tried: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "probe.cpp", Path(folder) / "probe.so"
        source.write_text('#include <iostream>\nvoid probe() { std::cout << "probe"; }\n')
        for compiler in filter(shutil.which, candidates):
            command = [compiler, "-shared", "-fPIC", str(source), "-o", str(library)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0 and b"libstdc++.so" in library.read_bytes():
                if tried:
                    say(f"llama.cpp for cuda: built with {compiler}, since {', '.join(tried)} links libstdc++ statically or not at all")
                return compiler
            tried.append(compiler)
    raise ColdprefixError(
        f"no C++ compiler here links libstdc++ as a shared library (tried {', '.join(tried) or 'none'}), and llama.cpp for cuda needs one: "
        "apt-get install g++"
    )


def _build(accelerator: str, folder: Path, compiler: str, record: Mapping[str, object]) -> None:
    started = time.monotonic()
    source = ensure_source() / "vendor" / "llama.cpp"
    tools = ensure_environment("llamacpp") / "bin"
    expected = "5 to 10 minutes on 2 cores" if accelerator == "cpu" else "some 85 core-minutes, most of them nvcc's"
    say(f"llama.cpp for {accelerator}: building into {folder} ({expected})")
    shutil.rmtree(folder, ignore_errors=True)
    work = folder.with_name(folder.name + ".build")
    shutil.rmtree(work, ignore_errors=True)
    log = building.CACHE / "logs" / f"llamacpp-{folder.name}.log"
    cuda = ":/usr/local/cuda/bin" if accelerator == "cuda" else ""
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}{cuda}"}
    env.pop("VIRTUAL_ENV", None)
    options = [*_flags(accelerator), f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={FASTER}"]
    if accelerator == "cuda":
        options += [f"-DCMAKE_CXX_COMPILER={compiler}", f"-DCMAKE_CUDA_HOST_COMPILER={shutil.which(compiler)}"]
        for name in NVCC_VARIABLES:  # which would name another one
            env.pop(name, None)
    what = f"llama.cpp for {accelerator}"
    run([tools / "cmake", "-G", "Ninja", "-S", source, "-B", work, *options], log, what, env)
    run([tools / "cmake", "--build", work, "--target", *TARGETS], log, what, env)
    shutil.copytree(work / "bin", folder, symlinks=True)
    libraries = {p.name: sha256_of(p.read_bytes()) for p in sorted(folder.iterdir()) if p.is_file() and not p.is_symlink()}
    finish(folder, started, {**record, "files": libraries})
    shutil.rmtree(work)
