"""A cell and the job that measures it.

A job is everything that decides what a cell's numbers are: lengths, protocol, engine settings, the identity of the model,
and hashes of the code and of the engine's build. The workflow passes it to the measuring program as one JSON text, so a
cell is measured again exactly when its own job changes.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Literal

from coldprefix import environments
from coldprefix.config import (
    PHASES,
    SCHEMA_VERSION,
    STANDIN_FORMAT,
    Cell,
    Config,
    Lengths,
    LlamaCpp,
    Model,
    StandinModel,
    State,
    Strict,
    Trials,
    Vllm,
)

SOURCE = Path(__file__).resolve().parent
SHARED_CODE = ("protocol.py", "prompts.py", "verify.py", "stopping.py", "clock.py", "engines/session.py")
ENGINE_CODE = {
    ("llamacpp", "http"): (
        "engines/llamacpp_http.py",
        "engines/http.py",
        "engines/chatml.jinja",
        "engines/llamacpp.py",
        "server.py",
        "supervise.py",
    ),
    ("llamacpp", "python"): ("engines/llamacpp_python.py", "engines/llamacpp.py", "engines/watchdog.py"),
    ("vllm", "http"): (
        "engines/vllm_http.py",
        "engines/http.py",
        "engines/chatml.jinja",
        "engines/vllm.py",
        "server.py",
        "shared.py",
        "supervise.py",
    ),
    ("vllm", "python"): ("engines/vllm_python.py", "engines/vllm.py", "engines/output.py", "engines/watchdog.py"),
}


class ModelUse(Strict):
    """The model as a job needs it."""

    name: str
    source: str
    identity: str  # sha256 over everything that decides its bytes
    positions: int
    vocabulary: int


class Protocol(Strict):
    """How a cell is measured; the keys of config.yaml of the same name."""

    trials: Trials
    burn_in: int
    replicates: int
    settle_ms: int
    stream_tokens: int
    seed: int
    content: Literal["fresh", "repeated"]
    request_form: Literal["tokens", "text", "chat"]
    reset: Literal["never", "trial"]
    max_rejected: float
    timeout_s: float
    start_timeout_s: float


class Job(Strict):
    """One measuring job: a cell with all that decides its numbers."""

    phase: str
    sweep: str
    variant: str
    configuration: str
    state: State
    engine: Literal["vllm", "llamacpp"]
    interface: Literal["http", "python"]
    lengths: Lengths
    model: ModelUse
    accelerator: Literal["cpu", "cuda"]
    threads: int
    protocol: Protocol
    llamacpp: LlamaCpp | None = None
    vllm: Vllm | None = None
    environment: str
    environment_key: str  # of the lock file
    engine_key: str  # of what the engine is built from
    code: str  # sha256 of the modules that measure, and of the schema's version

    @property
    def cell(self) -> str:
        """Its folder below results/raw: phase/configuration/state, in a sweep phase/variant/configuration/state."""
        return Cell(self.phase, self.variant, self.configuration, self.state).path

    def decisive(self) -> str:
        """What of it decides its numbers, as JSON. Patience does not: raising it after a time-out measures what is missing, not every cell."""
        return self.model_dump_json(exclude_none=True, exclude={"protocol": {"timeout_s", "start_timeout_s"}})

    @property
    def shares_server(self) -> bool:
        """May it use the server of another cell? Replicates are about fresh servers, so not with several."""
        return self.vllm is not None and self.vllm.share_server and self.interface == "http" and self.protocol.replicates == 1


def resolve_accelerator(wanted: str) -> Literal["cpu", "cuda"]:
    """What `accelerator: auto` means on this machine."""
    if wanted == "auto":
        return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"
    return "cuda" if wanted == "cuda" else "cpu"


def resolve_threads(wanted: int | str) -> int:
    """What `threads: auto` means on this machine: the physical cores that this process may use."""
    import psutil

    if isinstance(wanted, int):
        return wanted
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


def environment_of(engine: str, accelerator: str) -> str:
    """The folder of envs/ in which ``engine`` runs. llama.cpp's holds no accelerator code: its library is built apart."""
    return "llamacpp" if engine == "llamacpp" else f"vllm-{accelerator}"


def model_identity(model: Model) -> str:
    """sha256 over what decides the bytes of a model: its entry in config.yaml and, for a stand-in, the generator's format."""
    text = model.model_dump_json()
    if isinstance(model, StandinModel):
        text += f" format {STANDIN_FORMAT} {environments.llamacpp_source_key()}"
    return environments.sha256_of(text.encode())


@cache
def code_hash(*files: str) -> str:
    """sha256 over modules of coldprefix, by their paths below src/coldprefix."""
    return environments.sha256_of(b"\0".join(name.encode() + b"\0" + (SOURCE / name).read_bytes() for name in files))


def job_of(config: Config, cell: Cell) -> Job:
    """The job that measures one cell under this configuration on this machine."""
    phase = cell.phase
    engine, interface = PHASES[phase]
    accelerator = resolve_accelerator(config.accelerator)
    environment = environment_of(engine, accelerator)
    name = config.model_of(phase)
    built_from = ""
    if engine == "llamacpp":
        built_from = environments.sha256_of(
            " ".join([environments.llamacpp_source_key(), *environments.llamacpp_flags(accelerator)]).encode()
        )
    return Job.model_validate(
        {
            "phase": phase,
            "sweep": cell.sweep,
            "variant": cell.variant,
            "configuration": cell.configuration,
            "state": cell.state,
            "engine": engine,
            "interface": interface,
            "lengths": config.lengths_of(cell.configuration).model_dump(),
            "model": {
                "name": name,
                "source": config.models[name].source,
                "identity": model_identity(config.models[name]),
                "positions": config.models[name].positions,
                "vocabulary": config.models[name].vocabulary,
            },
            "accelerator": accelerator,
            "threads": resolve_threads(config.threads),
            "protocol": config.protocol_of(cell),
            engine: config.settings_of(cell).model_dump(),
            "environment": environment,
            "environment_key": environments.environment_key(environment),
            "engine_key": built_from,
            "code": environments.sha256_of(f"schema {SCHEMA_VERSION} {code_hash(*SHARED_CODE, *ENGINE_CODE[engine, interface])}".encode()),
        }
    )
