"""The configuration: one typed model from which come its checks, its schema file and its reference page.

A value is wrong in one of three ways, and each is reported with its path in config.yaml and what to write instead: a key
that does not exist, a value of the wrong type or range, and values that cannot be combined (checks.py, which reads the file, too).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, create_model, model_validator

from coldprefix.engines.contract import EngineSettings
from coldprefix.engines.endpoint.settings import EndpointSettings
from coldprefix.job import MIXED, Cell, Kind, Lengths, Protocol
from coldprefix.measure import edits
from coldprefix.models.contract import ModelEntry
from coldprefix.strict import OneOf, Strict, as_list, as_number, some_of
from coldprefix.study import registry
from coldprefix.study.machine import resolve_accelerator
from coldprefix.study.trace_keys import TraceKeys

# Of `registry.phases`, or of an endpoint: see check_phases.
PhaseName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]
EnginePhase = Annotated[str, OneOf("phase", registry.phases)]  # what claims are about


def _state(value: str) -> str:
    registry.edit(value)
    return value


State = Annotated[str, AfterValidator(_state), WithJsonSchema({"type": "string", "pattern": f"^{edits.STATE.pattern.replace('?P', '?')}$"})]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
ConfigurationName = Annotated[str, Field(pattern=r"^A[1-9][0-9]{0,6}_B[1-9][0-9]{0,6}$")]
Phases = Annotated[list[PhaseName], BeforeValidator(as_list)]
States = Annotated[list[State], BeforeValidator(as_list)]
Configurations = Annotated[list[ConfigurationName], BeforeValidator(as_list)]
if TYPE_CHECKING:
    Model = ModelEntry
else:
    Model = Annotated[Union[tuple(registry.source(name) for name in registry.SOURCES)], Field(discriminator="source")]  # noqa: UP007


def _with_engines(base: type[Strict], some: bool) -> type[Strict]:
    """``base`` with a section for each engine; with ``some``, all their keys are optional."""
    fields: dict[str, Any] = {}
    for name in registry.ENGINES:
        own = registry.engine(name).settings
        if some:
            fields[name] = (some_of(own) | None, Field(default=None, description=f"Keys of `{name}` that differ."))
        elif any(field.is_required() for field in own.model_fields.values()):
            fields[name] = (own, Field(description=f"Settings of {registry.engine(name).title}."))
        else:
            fields[name] = (own, Field(default=own(), description=f"Settings of {registry.engine(name).title}."))  # type: ignore[call-arg]
    return create_model(base.__name__, __base__=base, __doc__=base.__doc__, **fields)


class Override(some_of(Protocol, without=("seed", "timeout_s", "start_timeout_s"))):  # type: ignore[misc]
    """Values of some cells only."""


class Variant(_with_engines(Override, some=True)):  # type: ignore[misc]
    """What one variant of a sweep changes, against the main experiment."""

    model: Name | None = Field(default=None, description="Another model; a key of `models`.")
    phases: Phases | None = Field(default=None, min_length=1, description="Backends of this variant, if not all of the sweep.")


class Sweep(Variant):
    """More cells around one question. What it does not name is as in the main experiment."""

    phases: Phases = Field(
        min_length=1, description="Backends of the sweep; those that the top-level `phases` leaves out are not measured."
    )
    states: States = Field(min_length=1, description="Cache states of the sweep.")
    configurations: Configurations = Field(min_length=1, description="Lengths of the sweep.")
    variants: dict[Name, Variant] = Field(default={}, description="Named changes, each measured in every cell of the sweep.")
    question_tokens: int | None = Field(default=None, ge=1, description="Tokens of the question Q, if not as in the main experiment.")
    mixed: bool = Field(
        default=False,
        description="All lengths of a state in one cell, called `mixed`: each of its processes measures them all, in random order.",
    )


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
    names: Annotated[list[str], BeforeValidator(as_list)] = Field(default=["one", "other"], min_length=2, max_length=2)
    vary: Annotated[list[Literal["host", "engine", "settings", "code", "protocol"]], BeforeValidator(as_list)] = Field(
        default=[], description="What may differ between the runs; anything else that does is refused."
    )


class Config(TraceKeys, _with_engines(Protocol, some=False)):  # type: ignore[misc]
    """config.yaml."""

    model: Name = Field(
        description="The model of every phase that does not name its own: a key of `models`, or the path of a folder or GGUF file."
    )
    phase_models: dict[PhaseName, Name] = Field(default={}, description="Phases with a model of their own, by name or path as `model`.")
    experiments: Annotated[list[Name], BeforeValidator(as_list)] = Field(
        min_length=1, description="What to measure: main, which is the study's table, and keys of `sweeps`."
    )
    phases: Phases = Field(min_length=1, description="The phases to measure.")
    states: States = Field(min_length=1, description="Cache states to measure.")
    configurations: Configurations = Field(
        min_length=1, description="The lengths to measure: A512_B256 is a context A of 512 tokens and a context B of 256."
    )
    question_tokens: int = Field(ge=1, description="Tokens of the question Q that each query appends.")
    mixed: bool = Field(
        default=False,
        description="As of a sweep: all lengths of a state of the main experiment in one cell, for engines whose start takes long.",
    )
    accelerator: Literal["auto", "cpu", "cuda"] = Field(description="auto is cuda where an NVIDIA driver is loaded, else cpu.")
    threads: Annotated[Literal["auto"] | Annotated[int, Field(ge=1)], BeforeValidator(as_number)] = Field(
        description="Threads of an engine on the CPU; auto is the number of physical cores this process may use."
    )
    cells: dict[str, Override] = Field(
        default={}, description="Values of single cells of the main experiment: phase/configuration/state, * matches any."
    )
    sweeps: dict[Name, Sweep] = Field(default={}, description="More cells around one question each; `experiments` chooses among them.")
    calibration_samples: int = Field(
        ge=2, description="Samples of each time to first token in the calibration, per null engine; a tenth of it of each throughput."
    )
    peer_rounds: int = Field(ge=3, description="Runs of llama-bench of each length, each beside a miss of that length on each interface.")
    layout: str | None = Field(
        default=None, description="A prompt file (docs/layout.md), for `snakemake layout`: where should the parts that change stand?"
    )
    estimate: bool = Field(
        default=False, description="Only say what this configuration will take (docs/cluster.md): `snakemake --config estimate=true`."
    )
    vary: Annotated[list[Literal["host"]], BeforeValidator(as_list)] = Field(
        default=[],
        description="What may differ between the cells: host lets them be measured on several machines, each a block in the statistics; else that is refused.",
    )
    endpoints: dict[PhaseName, EndpointSettings] = Field(
        default={}, description="Running servers by a name of yours, which is that of a phase: `phases=NAME` measures it. docs/probe.md"
    )
    compare: Compare | None = Field(default=None, description="Two runs to set side by side, for `snakemake compare`.")
    figures: Figures
    models: dict[Name, Model] = Field(min_length=1)

    @model_validator(mode="after")
    def check_phases(self) -> Config:
        """Raises ValueError, a line for each, if a phase is neither an engine's nor an endpoint, or an endpoint has the name of one."""
        known = [*registry.phases(), *self.endpoints]
        named = {f"phases.{i}": phase for i, phase in enumerate(self.phases)}
        named |= {f"phase_models.{phase}": phase for phase in self.phase_models}
        for name, sweep in self.sweeps.items():
            named |= {f"sweeps.{name}.phases.{i}": phase for i, phase in enumerate(sweep.phases)}
            for variant, own in sweep.variants.items():
                named |= {f"sweeps.{name}.variants.{variant}.phases.{i}": phase for i, phase in enumerate(own.phases or [])}
        lines = [f"endpoints.{name}: this is the name of a phase; choose another" for name in self.endpoints if name in registry.phases()]
        for path, phase in named.items():
            try:
                OneOf("phase", lambda: known).check(phase)
            except ValueError as error:
                lines.append(f"{path}: {error}")
        if lines:
            raise ValueError("\n".join(lines))
        return self

    def model_of(self, cell: Cell) -> str:
        """Name of the model that a cell runs."""
        named = [change.model for change in self._changes(cell) if getattr(change, "model", None)]
        return named[-1] if named else self.phase_models.get(cell.phase, self.model)

    def lengths_of(self, configuration: str, sweep: str = "main") -> Lengths:
        """The token lengths that a configuration's name says, with the question of a sweep."""
        a, b = re.findall(r"\d+", configuration)
        own = self.sweeps[sweep].question_tokens if sweep in self.sweeps else None
        return Lengths(A=int(a), B=int(b), Q=own or self.question_tokens)

    def all_cells(self) -> list[Cell]:
        """Every cell, in the order of the configuration: the main experiment, then the sweeps."""
        cells = []
        if "main" in self.experiments:
            lengths = [MIXED] if self.mixed else self.configurations
            cells += [Cell(p, "main", c, s) for p in self.phases for c in lengths for s in self.states]
        for name, sweep in self.sweeps.items():
            if name in self.experiments:
                variants = {f"{name}/{variant}": own.phases for variant, own in sweep.variants.items()} or {name: None}
                phases = [phase for phase in sweep.phases if phase in self.phases]
                lengths = [MIXED] if sweep.mixed else sweep.configurations
                pairs = [(p, v) for p in phases for v, own in variants.items() if p in (own or phases)]
                cells += [Cell(p, v, c, s) for p, v in pairs for c in lengths for s in sweep.states]
        return cells

    def kinds_of(self, cell: Cell) -> list[Kind]:
        """What a process of this cell measures: its own state, then its partners', of its lengths. A partner that would reuse nothing although
        its state means that is left out."""
        protocol = self.protocol_of(cell)
        partners = [state for state in protocol["partners"] if state != cell.state] if protocol["content"] == "fresh" else []
        listed = self.sweeps[cell.sweep].configurations if cell.sweep in self.sweeps else self.configurations
        names = listed if cell.configuration == MIXED else [cell.configuration]
        lengths = {name: self.lengths_of(name, cell.sweep) for name in names}
        least = self.least_reuse(cell)

        def too_short(state: str, own: Lengths) -> bool:
            return registry.edit(state).keeps and least > own.A + own.B

        kinds = [Kind(configuration=name, lengths=own, state=cell.state) for name, own in lengths.items()]
        beside = [(state, name, own) for state in partners for name, own in lengths.items() if not too_short(state, own)]
        return kinds + [Kind(configuration=name, lengths=own, state=state) for state, name, own in beside]

    def least_reuse(self, cell: Cell) -> int:
        """Tokens of a common prefix below which the cell's engine reuses nothing, as far as it is known before it runs."""
        engine = registry.engine(registry.backend_of(cell.phase).engine)
        return engine.least_reuse(self.settings_of(cell), resolve_accelerator(self.accelerator))

    def _changes(self, cell: Cell) -> list[Override]:
        """What differs from the top-level values for a cell, later ones over earlier ones."""
        if cell.variant == "main":
            return [override for pattern, override in self.cells.items() if matches(pattern, cell)]
        sweep = self.sweeps[cell.sweep]
        name = cell.variant.partition("/")[2]
        return [sweep, *([sweep.variants[name]] if name else [])]

    def protocol_of(self, cell: Cell) -> dict[str, Any]:
        """Values of the protocol for a cell."""
        values = {name: getattr(self, name) for name in Protocol.model_fields}
        for change in self._changes(cell):
            values |= {name: getattr(change, name) for name in Override.model_fields if getattr(change, name) is not None}
        if registry.backend_of(cell.phase).interface == "python":
            values["request_form"] = "tokens"
        return values

    def settings_of(self, cell: Cell) -> EngineSettings:
        """The engine's settings for a cell."""
        engine = registry.backend_of(cell.phase).engine
        if cell.phase in self.endpoints:
            return self.endpoints[cell.phase]
        settings: EngineSettings = getattr(self, engine)
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
