"""The configuration: one typed model from which come its checks, its schema file and its reference page.

A value is wrong in one of three ways, and each is reported with its path in config.yaml and what to write instead: a key
that does not exist, a value of the wrong type or range, and values that cannot be combined (see `Config.check`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, create_model, model_validator

from coldprefix.errors import ColdprefixError

PhaseName = Literal["phase1", "phase2", "phase3a", "phase3b"]
State = Literal["hit", "miss"]
RequestForm = Literal["tokens", "text", "chat"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]

ConfigurationName = Annotated[str, Field(pattern=r"^A[1-9][0-9]{0,6}_B[1-9][0-9]{0,6}$")]

# phase -> (engine, interface); the words of the study
PHASES: dict[str, tuple[str, str]] = {
    "phase1": ("vllm", "http"),
    "phase2": ("vllm", "python"),
    "phase3a": ("llamacpp", "http"),
    "phase3b": ("llamacpp", "python"),
}

# Part of the identity of every stand-in model: raise it when the bytes that standin.py makes change.
STANDIN_FORMAT = 1
# Of the raw files. 4: the provenance record carries its own checksum. 3: steal_cpu, cpu_mhz, connect_ms.
SCHEMA_VERSION = 4

# Architectures that llama.cpp's converter refuses, with its own words.
REFUSED_BY_LLAMACPP = {"OPTForCausalLM": 'convert_hf_to_gguf.py: "Model OPTForCausalLM is not supported"'}


def _as_list(value: Any) -> Any:
    """`--config phases=phase3a,phase3b` arrives as one string."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _as_number(value: Any) -> Any:
    """Nested values given with --config arrive as strings; pydantic turns them into numbers except among literals."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class Strict(BaseModel):
    """A section of config.yaml: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Until(Strict):
    """Trials until the median is known well enough."""

    min: int = Field(ge=6, description="Fewest trials; below 6 there is no 95 % interval of a median.")
    max: int = Field(ge=6, description="Most trials, precise or not.")
    precision: float = Field(
        gt=0, lt=1, description="Width of the 95 % interval of the median TTFT, as a share of the median: 0.1 is 10 %."
    )

    @model_validator(mode="after")
    def check(self) -> Until:
        """Raises ValueError if min is above max."""
        if self.min > self.max:
            raise ValueError(f"trials.min: {self.min} is more than trials.max ({self.max}); write at most that")
        return self


# A number of trials, or when to stop. Which of the two is meant decides what is said of a mistake.
Trials = Annotated[
    Annotated[int, Field(ge=1), Tag("number")] | Annotated[Until, Tag("until")],
    Discriminator(lambda value: "until" if isinstance(value, (dict, Until)) else "number"),
]


class Lengths(Strict):
    """The parts of a prompt, in tokens: context A, which a miss drops, context B, and the question that is appended."""

    A: int
    B: int
    Q: int


class LlamaCpp(Strict):
    """Settings of llama.cpp, equal for llama-server (phase3a) and llama-cpp-python (phase3b)."""

    context_tokens: int = Field(ge=16, description="Context of one slot, in tokens; capped at the model's positions.")
    batch_tokens: int = Field(ge=1, description="n_batch: most prompt tokens submitted to one llama_decode; capped at the context.")
    ubatch_tokens: int = Field(ge=1, description="n_ubatch: most prompt tokens computed in one graph.")
    gpu_layers: int = Field(ge=-1, description="Layers offloaded to the GPU; -1 means all. Ignored on cpu.")
    flash_attention: bool = Field(description="Flash attention. The binding's own default is off, the server's auto.")
    slots: int = Field(ge=1, description="llama-server's slots (--parallel). The binding has one sequence.")
    unified: bool = Field(
        description="All slots share one pool of context_tokens cells (--kv-unified, llama-server's default where it chooses the slots "
        "itself). false: each slot has context_tokens of its own."
    )
    host_cache_mib: int = Field(
        ge=0,
        description="llama-server keeps replaced prompts in host memory and restores them (--cache-ram, 8192 by default). "
        "0 turns that off; with more, a repeated miss becomes a hit.",
    )
    prompt_cache: bool = Field(description="Reuse the longest common prefix of the slot (cache_prompt). Off: nothing can hit.")


class Vllm(Strict):
    """Settings of vLLM, equal for `vllm serve` (phase1) and `LLM` (phase2)."""

    context_tokens: int = Field(ge=16, description="max_model_len, in tokens; capped at the model's positions.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(description="auto: bfloat16 on cpu, float16 on cuda.")
    prefix_caching: bool = Field(description="Automatic prefix caching. Off: nothing can hit.")
    block_tokens: Annotated[Literal["auto", 16, 32, 64, 128], BeforeValidator(_as_number)] = Field(
        description="KV block size; auto is the engine's own (128 on cpu, 16 on cuda)."
    )
    kv_cache_gib: int = Field(ge=1, description="Memory of the KV block pool, in GiB.")
    batch_tokens: int = Field(ge=16, description="max_num_batched_tokens: most tokens computed in one step.")
    enforce_eager: bool = Field(description="Eager mode: no compilation, no CUDA graphs.")
    share_server: bool = Field(
        description="Cells of a run use the same `vllm serve` one after the other where their settings agree: its cache is emptied before "
        "each cell, and the cell's first warm-up must find it empty. false, and always with replicates above 1: a fresh server for each."
    )


class StandinModel(Strict):
    """A real architecture with deterministic random weights, generated here: no network."""

    source: Literal["standin"]
    architecture: Literal["GPT2LMHeadModel", "OPTForCausalLM"]
    layers: int = Field(ge=1)
    width: int = Field(ge=32, description="Embedding width; a multiple of 32 times heads.")
    heads: int = Field(ge=1)
    positions: int = Field(ge=64, description="Trained context length, in tokens.")
    vocabulary: int = Field(ge=50257, description="At least GPT-2's 50257, whose tokenizer is used.")
    seed: int = Field(ge=0)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="Expected sha256 of model.safetensors.")


class HubModel(Strict):
    """A repository of the Hugging Face Hub at a pinned revision."""

    source: Literal["hub"]
    repository: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", description="owner/name")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$", description="A full commit hash, never a branch: a branch moves.")
    architecture: str = Field(pattern=r"^[A-Za-z0-9_]+$", description='"architectures" in its config.json.')
    positions: int = Field(ge=64, description="Trained context length, in tokens.")
    vocabulary: int = Field(ge=256)
    files: dict[str, str | None] = Field(
        min_length=2, description="File name: sha256. Null: the first download records it, says so, and later ones must agree."
    )
    convert_pickle: str | None = Field(
        default=None,
        description="A file of weights that exists as a pickle only. It is read with torch.load(weights_only=True) and written as "
        "model.safetensors; no engine sees the pickle.",
    )


Model = Annotated[StandinModel | HubModel, Field(discriminator="source")]


class Override(Strict):
    """Values of some cells only."""

    trials: Trials | None = None
    burn_in: int | None = Field(default=None, ge=0)
    replicates: int | None = Field(default=None, ge=1)
    settle_ms: int | None = Field(default=None, ge=0)
    stream_tokens: int | None = Field(default=None, ge=2)
    content: Literal["fresh", "repeated"] | None = None
    request_form: RequestForm | None = None
    reset: Literal["never", "trial"] | None = None
    max_rejected: float | None = Field(default=None, ge=0, le=1)


def _some_of(section: type[Strict]) -> type[Strict]:
    """The same section with every key optional: what a sweep changes."""
    fields: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        kind: Any = field.annotation | None  # type: ignore[operator]
        for constraint in field.metadata:
            kind = Annotated[kind, constraint]
        fields[name] = (kind, Field(default=None, description=field.description))
    return create_model(f"Some{section.__name__}", __base__=Strict, __doc__=section.__doc__, **fields)


SomeLlamaCpp = _some_of(LlamaCpp)
SomeVllm = _some_of(Vllm)


class Variant(Override):
    """What one variant of a sweep changes, against the main experiment."""

    llamacpp: SomeLlamaCpp | None = Field(default=None, description="Keys of `llamacpp` that differ.")  # type: ignore[valid-type]
    vllm: SomeVllm | None = Field(default=None, description="Keys of `vllm` that differ.")  # type: ignore[valid-type]


class Sweep(Variant):
    """More cells around one question. What it does not name is as in the main experiment."""

    phases: Annotated[list[PhaseName], BeforeValidator(_as_list)] = Field(
        min_length=1, description="Backends of the sweep; those that the top-level `phases` leaves out are not measured."
    )
    states: Annotated[list[State], BeforeValidator(_as_list)] = Field(min_length=1, description="Cache states of the sweep.")
    configurations: Annotated[list[ConfigurationName], BeforeValidator(_as_list)] = Field(min_length=1, description="Lengths of the sweep.")
    variants: dict[Name, Variant] = Field(default={}, description="Named changes, each measured in every cell of the sweep.")


class Cell(NamedTuple):
    """One measuring job. ``variant`` is "main", the sweep's name, or "sweep/variant"."""

    phase: str
    variant: str
    configuration: str
    state: State

    @property
    def sweep(self) -> str:
        return self.variant.partition("/")[0]

    @property
    def path(self) -> str:
        """Its folder below results/raw."""
        parts = [self.phase, self.configuration, self.state]
        return "/".join(parts if self.variant == "main" else [parts[0], self.variant, *parts[1:]])


class Figures(Strict):
    """How figures look; changing it measures nothing."""

    column_in: float = Field(gt=1, description="Width of a column of the paper, in inches.")
    text_in: float = Field(gt=2, description="Width of the text block, in inches.")
    font_pt: float = Field(ge=5, le=14, description="Size of the text, in points.")
    png_dpi: int = Field(ge=50, le=1200)


class Compare(Strict):
    """Two runs to set side by side: `snakemake compare`."""

    one: str = Field(min_length=1, description="Folder of results of one run.")
    other: str = Field(min_length=1, description="Folder of results of the other.")
    names: Annotated[list[str], BeforeValidator(_as_list)] = Field(default=["one", "other"], min_length=2, max_length=2)
    vary: Annotated[list[Literal["host", "engine", "settings", "code", "protocol"]], BeforeValidator(_as_list)] = Field(
        default=[], description="What may differ between the runs; anything else that does is refused."
    )


class Config(Strict):
    """config.yaml."""

    model: Name = Field(description="The model of every phase that does not name its own; a key of `models`.")
    phase_models: dict[PhaseName, Name] = Field(default={}, description="Phases with a model of their own.")
    experiments: Annotated[list[Name], BeforeValidator(_as_list)] = Field(
        min_length=1, description="What to measure: main, which is the study's table, and keys of `sweeps`."
    )
    phases: Annotated[list[PhaseName], BeforeValidator(_as_list)] = Field(min_length=1, description="The phases to measure.")
    states: Annotated[list[State], BeforeValidator(_as_list)] = Field(min_length=1, description="Cache states to measure.")
    configurations: Annotated[list[ConfigurationName], BeforeValidator(_as_list)] = Field(
        min_length=1, description="The lengths to measure: A512_B256 is a context A of 512 tokens and a context B of 256."
    )
    question_tokens: int = Field(ge=1, description="Tokens of the question Q that each query appends.")
    accelerator: Literal["auto", "cpu", "cuda"] = Field(description="auto is cuda where an NVIDIA driver is loaded, else cpu.")
    threads: Annotated[Literal["auto"] | Annotated[int, Field(ge=1)], BeforeValidator(_as_number)] = Field(
        description="Threads of an engine on the CPU; auto is the number of physical cores this process may use."
    )
    seed: int = Field(ge=0, description="Seed of every prompt.")
    trials: Trials = Field(
        description="Trials per cell and replicate, burn-in not counted: a number, or {min: 6, max: 20, precision: 0.05}, which stops when the "
        "95 % interval of the median TTFT is narrower than that share of the median."
    )
    burn_in: int = Field(ge=0, description="First trials of a fresh server: kept and marked, not in the statistics.")
    replicates: int = Field(ge=1, description="Fresh servers per cell, each with all its trials.")
    settle_ms: int = Field(ge=0, description="Pause before each query, in ms.")
    stream_tokens: int = Field(ge=2, description="Tokens generated by the streaming query, for the throughput.")
    content: Literal["fresh", "repeated"] = Field(
        description="fresh: new prompts in every trial. repeated: the same prompts in every trial, as in the original study, whose "
        "misses were hits from the second trial on."
    )
    request_form: RequestForm = Field(
        description="How the HTTP phases send a prompt. tokens: the ids themselves. text: as text, which the engine tokenises again. chat: "
        "as one user message in a chat template (ChatML). Over the Python interfaces always tokens."
    )
    reset: Literal["never", "trial"] = Field(description="trial: empty the engine's cache before every trial, and check that it is empty.")
    max_rejected: float = Field(ge=0, le=1, description="A cell with a larger share of rejected trials fails.")
    cells: dict[str, Override] = Field(
        default={}, description="Values of single cells of the main experiment: phase/configuration/state, * matches any."
    )
    sweeps: dict[Name, Sweep] = Field(default={}, description="More cells around one question each; `experiments` chooses among them.")
    calibration_samples: int = Field(
        ge=2, description="Samples of each time to first token in the calibration, per null engine; a tenth of it of each throughput."
    )
    peer_rounds: int = Field(ge=3, description="Runs of llama-bench of each length, each beside a miss of that length on each interface.")
    llamacpp: LlamaCpp
    vllm: Vllm
    timeout_s: float = Field(gt=0, description="Longest wait for one answer, in seconds.")
    start_timeout_s: float = Field(gt=0, description="Longest wait for an engine to be ready, in seconds.")
    compare: Compare | None = Field(default=None, description="Two runs to set side by side, for `snakemake compare`.")
    figures: Figures
    models: dict[Name, Model] = Field(min_length=1)

    def model_of(self, phase: str) -> str:
        """Name of the model that ``phase`` runs."""
        return self.phase_models.get(phase, self.model)  # type: ignore[call-overload, no-any-return]

    def lengths_of(self, configuration: str) -> Lengths:
        """The token lengths that a configuration's name says."""
        a, b = re.findall(r"\d+", configuration)
        return Lengths(A=int(a), B=int(b), Q=self.question_tokens)

    @model_validator(mode="after")
    def check(self) -> Config:
        """Combinations that cannot work. Raises ValueError with one line per problem, each starting with a key's path."""
        problems = list(self._problems())
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        for key, listed in (
            ("experiments", self.experiments),
            ("phases", self.phases),
            ("states", self.states),
            ("configurations", self.configurations),
        ):
            if len(set(listed)) < len(listed):
                yield f"{key}: {listed} names something twice; write each once"
        for phase in [None, *PHASES]:
            if phase is not None and phase not in self.phase_models:
                continue
            key = "model" if phase is None else f"phase_models.{phase}"
            name = self.model if phase is None else self.model_of(phase)
            if name not in self.models:
                yield f"{key}: there is no model {name!r}{_suggest(name, self.models)}; the models are {', '.join(self.models)}"
        for name in self.experiments:
            if name != "main" and name not in self.sweeps:
                choices = ["main", *self.sweeps]
                yield f"experiments: there is no sweep {name!r}{_suggest(name, choices)}; the experiments are {', '.join(choices)}"
        if "main" in self.sweeps:
            yield "sweeps.main: the name main is taken by the main experiment; choose another"
        if not self.all_cells():
            yield f"experiments: {self.experiments} have no cell with the phases {self.phases}; name a phase of theirs"
        for phase in dict.fromkeys(cell.phase for cell in self.all_cells()):
            model = self.models.get(self.model_of(phase))
            if model is not None and PHASES[phase][0] == "llamacpp" and model.architecture in REFUSED_BY_LLAMACPP:
                yield (
                    f"{self._model_key(phase)}: {phase} runs llama.cpp, which cannot run {self.model_of(phase)} "
                    f"({REFUSED_BY_LLAMACPP[model.architecture]}); write phase_models: {{{phase}: gpt2-standin}}, or leave {phase} out of phases"
                )
        yield from dict.fromkeys(problem for cell in self.all_cells() for problem in self._problems_of(cell))
        for name, model in self.models.items():
            if isinstance(model, StandinModel) and model.width % (32 * model.heads):
                yield f"models.{name}.width: {model.width} is not a multiple of 32 x heads ({32 * model.heads})"
            if isinstance(model, HubModel):
                yield from _hub_problems(name, model)
        for pattern in self.cells:
            if not re.fullmatch(r"(phase\w+|\*)/([\w.*-]+)/(hit|miss|\*)", pattern):
                yield f'cells: {pattern!r} is not phase/configuration/state; write for example "phase3b/A512_B256/miss" or "*/*/miss"'
            elif not any(matches(pattern, cell) for cell in self.all_cells()):
                yield f"cells: {pattern!r} matches no cell; the cells are made of {list(self.phases)} x {list(self.configurations)} x {list(self.states)}"

    def _model_key(self, phase: str) -> str:
        return f"phase_models.{phase}" if phase in self.phase_models else "model"

    def _problems_of(self, cell: Cell) -> Iterator[str]:
        """Problems of one cell with its model and its values."""
        engine, _ = PHASES[cell.phase]
        key = "" if cell.variant == "main" else f"sweeps.{cell.sweep}."
        protocol, settings = self.protocol_of(cell), self.settings_of(cell)
        if isinstance(settings, LlamaCpp) and settings.ubatch_tokens > settings.batch_tokens:
            yield f"{key}llamacpp.ubatch_tokens: {settings.ubatch_tokens} is more than batch_tokens ({settings.batch_tokens}); write at most that"
        caching = settings.prompt_cache if isinstance(settings, LlamaCpp) else settings.prefix_caching
        if not caching and cell.state == "hit":
            switch = "prompt_cache" if engine == "llamacpp" else "prefix_caching"
            yield f"{key}{engine}.{switch}: false makes every hit a miss; write true, or states: [miss]"
        name = self.model_of(cell.phase)
        model = self.models.get(name)
        if model is None or protocol["max_rejected"] == 1:  # where all may be rejected, an engine's refusal is a result
            return
        context = min(settings.context_tokens, model.positions)
        limit = f"{model.positions} positions of {name}" if context == model.positions else f"{engine}.context_tokens"
        lengths = self.lengths_of(cell.configuration)
        needed = max(lengths.A + lengths.B + (lengths.Q if cell.state == "hit" else 0), lengths.B + lengths.Q) + protocol["stream_tokens"]
        if needed > context:
            parts = "A + B + question_tokens + stream_tokens"
            yield (
                f"{key}configurations: {cell.configuration}: {parts} = {needed} tokens do not fit the {context} tokens of "
                f"{cell.phase} ({limit}); shorten them by {needed - context}"
            )

    def all_cells(self) -> list[Cell]:
        """Every cell, in the order of the configuration: the main experiment, then the sweeps."""
        cells = []
        if "main" in self.experiments:
            cells += [Cell(p, "main", c, s) for p in self.phases for c in self.configurations for s in self.states]
        for name, sweep in self.sweeps.items():
            if name in self.experiments:
                variants = [f"{name}/{variant}" for variant in sweep.variants] or [name]
                phases = [phase for phase in sweep.phases if phase in self.phases]
                cells += [Cell(p, v, c, s) for p in phases for c in sweep.configurations for v in variants for s in sweep.states]
        return cells

    def _changes(self, cell: Cell) -> list[Override]:
        """What differs from the top-level values for a cell, later ones over earlier ones."""
        if cell.variant == "main":
            return [override for pattern, override in self.cells.items() if matches(pattern, cell)]
        sweep = self.sweeps[cell.sweep]
        name = cell.variant.partition("/")[2]
        return [sweep, *([sweep.variants[name]] if name else [])]

    def protocol_of(self, cell: Cell) -> dict[str, Any]:
        """Values of the protocol for a cell, by the names of the top-level keys."""
        names = [*Override.model_fields, "seed", "timeout_s", "start_timeout_s"]
        values = {name: getattr(self, name) for name in names}
        for change in self._changes(cell):
            values |= {name: getattr(change, name) for name in Override.model_fields if getattr(change, name) is not None}
        if PHASES[cell.phase][1] == "python":
            values["request_form"] = "tokens"
        return values

    def settings_of(self, cell: Cell) -> LlamaCpp | Vllm:
        """The engine's settings for a cell."""
        engine, _ = PHASES[cell.phase]
        settings: LlamaCpp | Vllm = getattr(self, engine)
        for change in self._changes(cell):
            some = getattr(change, engine, None)
            if some is not None:
                settings = settings.model_copy(update=some.model_dump(exclude_none=True))
        return settings


def matches(pattern: str, cell: Cell) -> bool:
    """Does "phase/configuration/state" with * for any match this cell of the main experiment?"""
    own = (cell.phase, cell.configuration, cell.state)
    parts = pattern.split("/")
    return cell.variant == "main" and len(parts) == 3 and all(p in ("*", part) for p, part in zip(parts, own, strict=True))


def _hub_problems(name: str, model: HubModel) -> Iterator[str]:
    for file in model.files:
        if file.startswith(("/", "-")) or ".." in Path(file).parts or not re.fullmatch(r"[\w./-]+", file):
            yield f"models.{name}.files: {file!r} is not the name of a file inside the repository"
        pickled = file.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt"))
        if file.endswith(".py"):
            yield f"models.{name}.files: {file!r} is a program; coldprefix runs no code of a model"
        if pickled and file != model.convert_pickle:
            yield f"models.{name}.files: {file!r} is a pickle, which can run code; name the .safetensors file instead"
    for file, sha256 in model.files.items():
        if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
            yield f"models.{name}.files.{file}: {sha256!r} is not a sha256 (64 hex digits); write null if it is not known"
    if model.convert_pickle and model.convert_pickle not in model.files:
        yield f"models.{name}.convert_pickle: {model.convert_pickle!r} is not among files"
    if not model.convert_pickle and not any(file.endswith(".safetensors") for file in model.files):
        yield f"models.{name}.files: no .safetensors file among them; weights are read from safetensors only"
    if "config.json" not in model.files:
        yield f"models.{name}.files: config.json is missing; every engine needs it"


def _suggest(word: str, choices: Mapping[str, Any] | list[str]) -> str:
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


# Parts of pydantic's locations that are no keys of config.yaml.
TAGS = ("standin", "hub", "number", "until", "literal['auto']", "constrained-int")


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """The keys that exist in the section where an unknown key was found."""
    model: Any = Config
    for part in location[:-1]:
        if model is Config and part in ("models", "cells"):
            model = {"models": None, "cells": Override}[str(part)]
        elif model is None and part in ("standin", "hub"):
            model = StandinModel if part == "standin" else HubModel
        elif part == "until":
            model = Until
        elif isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _explain(error: ValidationError) -> str:
    """One line per mistake: the key's path, what is wrong, what to write instead."""
    lines = []
    for item in error.errors(include_url=False):
        location = item["loc"]
        path = ".".join(str(part) for part in location if part not in TAGS)
        path = re.sub(r"\.(literal\[.*?\]|constrained-\w+|int|str)$", "", path)
        kind, context, value = item["type"], item.get("ctx", {}), item["input"]
        if kind == "extra_forbidden":
            siblings = _siblings(location)
            text = f"there is no such key{_suggest(str(location[-1]), siblings)}; the keys here are {', '.join(siblings)}"
        elif kind == "missing":
            text = "this key is missing; config.yaml in the repository shows it with its meaning"
        elif kind == "value_error":
            lines.extend(str(context["error"]).splitlines())
            continue
        elif kind == "literal_error":
            choices = re.findall(r"'([^']+)'", context["expected"])
            text = f"{value!r} is not {context['expected']}{_suggest(str(value), choices)}"
        else:
            message = item["msg"].replace("Input should be", "should be")
            text = f"{value!r}: {message[0].lower()}{message[1:]}"
        if path and f"{path}: {text}" not in lines:
            lines.append(f"{path}: {text}")
    return "\n".join(f"  {line}" for line in lines)


def parse(values: Mapping[str, Any]) -> Config:
    """Check a configuration as Snakemake or YAML read it.

    Raises:
        ColdprefixError: lists every mistake with its path and a correction.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise ColdprefixError(f"the configuration cannot be used:\n{_explain(error)}") from None


def load(path: Path) -> Config:
    """Read and check a configuration file."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ColdprefixError(f"cannot read {path}: {error}") from None
    if not isinstance(values, dict):
        raise ColdprefixError(f"{path} must hold keys and values, like the config.yaml of the repository")
    return parse(values)
