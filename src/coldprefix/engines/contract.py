"""The contract between the study and an engine: what an engine says of itself, and a session, which is one that runs.

A session is sent token ids and answers with times and counts, no text. Adding an engine: docs/extending.md.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from coldprefix.engines.reuse import Memory, Slot
from coldprefix.errors import ColdprefixError
from coldprefix.files import read_json
from coldprefix.job import Job
from coldprefix.process.identity import born
from coldprefix.strict import Strict


@dataclass(frozen=True)
class Completion:
    """One answered request. Times are in ms from the moment the request is handed to the engine.

    Over HTTP that moment is when the connection stands: connecting is `connect_ms`, not part of the other times.

    Attributes:
        started_at: wall clock at the start, in seconds since the epoch.
        connect_ms: time to connect; None in process.
        total_ms: until the answer is complete; None if the engine refused.
        token_times_ms: arrival of each generated token (tokens of one chunk share a time); empty when not streamed.
        prompt_tokens: length of the prompt as the engine reports it; None if it does not.
        cached_tokens: prompt tokens the engine says it reused; None if it does not say.
        evaluated_tokens: prompt tokens the engine says it computed; None if it does not say.
        counted_tokens: prompt tokens reused by a second source of the engine's, apart from its answer: a counter, its own positions; None
            if it has none.
        engine_prompt_ms: the engine's own time for computing the prompt (llama.cpp); None if it does not say.
        engine_ttft_ms: the engine's own time to first token, its queue and scheduling included (vLLM); None if it does not say.
        generated_tokens: as the engine reports them.
        first_chunk_tokens: tokens in the first streamed chunk; None when not streamed.
        uncounted: why `cached_tokens` is None, in words: what stood in its place.
    """

    started_at: float
    connect_ms: float | None
    total_ms: float | None
    token_times_ms: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    evaluated_tokens: int | None = None
    counted_tokens: int | None = None
    engine_prompt_ms: float | None = None
    engine_ttft_ms: float | None = None
    generated_tokens: int = 0
    first_chunk_tokens: int | None = None
    uncounted: str | None = None

    @property
    def ttft_ms(self) -> float | None:
        """Time to first token, if the answer was streamed."""
        return self.token_times_ms[0] if self.token_times_ms else None


TOP = 20  # next tokens of which an engine tells the log-probability


@dataclass(frozen=True)
class NextToken:
    """What an engine would say next.

    Attributes:
        logprobs: natural logarithms of the probabilities of the TOP likeliest tokens, by their ids.
        cached_tokens: prompt tokens that it reused for that; None if it does not say.
    """

    logprobs: dict[int, float]
    cached_tokens: int | None


class Session(ABC):
    """An engine that runs. Close it, or use it as a context manager.

    Attributes:
        start_s: seconds from the start until it was ready.
        used_before: number of cells that the same engine has measured before; 0 for one that was started for this job.
        elsewhere: its processes are not known, or on another machine: the load of this one does not tell who disturbs it.
    """

    start_s: float = 0.0
    used_before: int = 0
    elsewhere: bool = False

    @property
    def identity(self) -> str:
        """Tells its process from all others of this machine: trials of one process share its start."""
        pid = next(iter(self.process_ids()), os.getpid())
        return f"{pid}-{born(pid)}"

    @abstractmethod
    def memory(self) -> Memory:
        """The rule by which this engine, as it runs, reuses what it was sent; with nothing in it. As of `Engine.memory`."""

    @abstractmethod
    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        """Send a prompt and generate exactly ``max_tokens`` greedily.

        Raises:
            EngineRefusal: the engine works, but will not take this prompt.
            ColdprefixError: the engine failed, died, or did not answer in time; one inside this process ends it then (in_process.py).
        """

    def next_token(self, prompt: Sequence[int]) -> NextToken | None:
        """What follows this prompt, greedily and without any bias; outside the clock. None: the engine cannot say.

        Raises:
            ColdprefixError: as of `complete`.
        """
        return None

    def seen(self, prompt: Sequence[int]) -> list[int]:
        """The token ids that the engine works on when it is sent this prompt: not the same where it is sent as text."""
        return list(prompt)

    @abstractmethod
    def reset(self) -> None:
        """Empty the engine's cache. Raises ColdprefixError where the engine cannot or says that it did not."""

    @abstractmethod
    def in_force(self) -> dict[str, Any]:
        """The settings that are really in force, read back from the engine."""

    def noted(self) -> dict[str, Any]:
        """What was seen beside the requests, for the record of its cell: of a server that somebody else runs, the way there and its load."""
        return {}

    @abstractmethod
    def process_ids(self) -> list[int]:
        """Processes that work for the engine; their load is not foreign load."""

    @abstractmethod
    def close(self) -> None:
        """Stop the engine; nothing of it survives."""

    def leave(self) -> None:
        """The job is done and the engine idle: stop it, or leave it to the next job where jobs share one."""
        self.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.leave()
        else:
            self.close()


class EngineSettings(Strict):
    """What every engine's section of config.yaml holds."""

    context_tokens: int = Field(ge=16, description="Context of one request, in tokens; capped at the model's positions.")

    def context_of(self, positions: int) -> int:
        """The context in force: a model is not run beyond the positions that it was trained with."""
        return min(self.context_tokens, positions)


@dataclass(frozen=True)
class Interface:
    """One way to reach an engine: a backend.

    Attributes:
        phase: the study's word for it, in config.yaml and on the command line.
        colour, marker: of the backend in all figures; no colour of a state.
    """

    phase: str
    colour: str
    marker: str


class Engine(ABC):
    """What is known of an engine before it runs. Cheap to make and to import: no package of the engine's is needed for it.

    Attributes:
        name: its section of config.yaml and its folder below engines/; title: in figures.
        settings: the section's type; equal for all interfaces.
        interfaces: "http" and "python": how it can be reached.
        must_agree: settings in force that must be the same on all interfaces.
        weights: what it loads; "served": nothing, somebody else runs it.
        refuses: architectures that it cannot run, with its own words; refuses_on: those that it cannot run on an accelerator.
        caching: the key of its settings that switches the reuse of prefixes.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    settings: ClassVar[type[EngineSettings]]
    interfaces: ClassVar[Mapping[str, Interface]]
    must_agree: ClassVar[tuple[str, ...]]
    weights: ClassVar[Literal["safetensors", "gguf", "served"]]
    refuses: ClassVar[Mapping[str, str]] = {}
    refuses_on: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    caching: ClassVar[str]

    def refusals(self, accelerator: str) -> dict[str, str]:
        """Architectures that it cannot run on an accelerator, with its own words."""
        return {**self.refuses, **self.refuses_on.get(accelerator, {})}

    def for_clients(self, settings: Mapping[str, Any], most: int) -> dict[str, Any]:
        """The settings to change so that ``most`` requests are computed at once. Raises ColdprefixError if it has none for that."""
        raise ColdprefixError(f"{self.title}: how many requests it computes at once is not ours to set")

    def in_pieces(self, settings: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        """The settings to change so that at most ``tokens`` of a prompt are computed in one step."""
        return {"batch_tokens": tokens}

    def may_differ(self, settings: Mapping[str, Any]) -> frozenset[str]:
        """Of `must_agree`, what these settings leave to each interface."""
        return frozenset()

    @abstractmethod
    def environment(self, accelerator: str) -> str:
        """The folder of envs/ in which its sessions run."""

    def built_from(self, accelerator: str) -> str:
        """sha256 over what it is built from, beside its environment; "" if nothing is built."""
        return ""

    def build(self, accelerator: str) -> dict[str, Any]:
        """Make its build exist, and return the record of it. Raises ColdprefixError if that fails."""
        return {}

    def problems(self, settings: Any, interface: str) -> Iterator[str]:
        """What cannot work among its settings over an interface: "key: what is wrong; what to write"."""
        yield from ()

    def too_small(self, settings: Any, context: int, accelerator: str) -> Iterator[str]:
        """What of its settings has no room for a request of ``context`` tokens: "key: what is wrong; what to write"."""
        yield from ()

    def least_reuse(self, settings: Any, accelerator: str) -> int:
        """Tokens of a common prefix below which nothing is reused, as far as it is known before the engine runs."""
        return 1

    def memory(self, in_force: Mapping[str, Any], interface: str) -> Memory:
        """The rule by which it reuses what it was sent, with these settings in force; with nothing in it."""
        return Slot()

    def shares_server(self, job: Job) -> bool:
        """May a job use a server that another job of the run has started?"""
        return False

    @abstractmethod
    def open(self, job: Job, weights: Path, log: Path, owner: int | None, process: int) -> Session:
        """Start it and wait until it is ready.

        Args:
            weights: the folder with safetensors, or the GGUF file.
            log: where the engine's own output goes.
            owner: process id of the workflow, to which servers that jobs share belong; None: a server of this job.
            process: 0, 1, ...: which of the job's engine processes.

        Raises:
            ColdprefixError: it did not start.
        """


RECORD = "coldprefix.json"  # inside a model's folder in models/: what it is made of, and where its weights are


def weights_of(models: Path, name: str, kind: str) -> Path:
    """What an engine loads of the model ``name``: its folder of "safetensors", or its "gguf" file, of a split one the first.

    Args:
        models: the folder that holds the models' folders; a model of the user's own lies elsewhere, and only its record is there.

    Raises:
        ColdprefixError: there is no such model, or it has no weights of this kind.
    """
    if kind == "served":
        return Path()  # on the server, whoever runs it
    found = read_json(models / name / RECORD, "Run snakemake, which makes the model.").get("weights", {}).get(kind)
    if not found:
        raise ColdprefixError(f"{models / name / RECORD} knows no {kind} weights of the model {name}. Run snakemake, which makes them.")
    return models / str(found)


def load(name: str) -> Engine:
    """The engine of this name, from its folder. A cell's program knows no other: adding an engine measures nothing again."""
    found: Engine = import_module(f"coldprefix.engines.{name}.engine").ENGINE
    return found
