"""The configuration: one typed model from which come its checks, its schema file and its reference page.

A value is wrong in one of three ways, and each is reported with its path in config.yaml and what to write instead: a key
that does not exist, a value of the wrong type or range, and values that cannot be combined (checks.py, which reads the file, too).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import BeforeValidator, Field, create_model

from coldprefix.engines.contract import EngineSettings
from coldprefix.job import MIXED, Cell, Kind, Lengths, Protocol
from coldprefix.models.contract import ModelEntry
from coldprefix.strict import OneOf, Strict, as_list, as_number, some_of
from coldprefix.study import registry

PhaseName = Annotated[str, OneOf("phase", registry.phases)]
State = Annotated[str, OneOf("state", lambda: registry.EDITS)]
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


class Sweep(Variant):
    """More cells around one question. What it does not name is as in the main experiment."""

    phases: Phases = Field(
        min_length=1, description="Backends of the sweep; those that the top-level `phases` leaves out are not measured."
    )
    states: States = Field(min_length=1, description="Cache states of the sweep.")
    configurations: Configurations = Field(min_length=1, description="Lengths of the sweep.")
    variants: dict[Name, Variant] = Field(default={}, description="Named changes, each measured in every cell of the sweep.")
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


class Config(_with_engines(Protocol, some=False)):  # type: ignore[misc]
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
    compare: Compare | None = Field(default=None, description="Two runs to set side by side, for `snakemake compare`.")
    figures: Figures
    models: dict[Name, Model] = Field(min_length=1)

    def model_of(self, phase: str) -> str:
        """Name of the model that ``phase`` runs."""
        return self.phase_models.get(phase, self.model)

    def lengths_of(self, configuration: str) -> Lengths:
        """The token lengths that a configuration's name says."""
        a, b = re.findall(r"\d+", configuration)
        return Lengths(A=int(a), B=int(b), Q=self.question_tokens)

    def all_cells(self) -> list[Cell]:
        """Every cell, in the order of the configuration: the main experiment, then the sweeps."""
        cells = []
        if "main" in self.experiments:
            cells += [Cell(p, "main", c, s) for p in self.phases for c in self.configurations for s in self.states]
        for name, sweep in self.sweeps.items():
            if name in self.experiments:
                variants = [f"{name}/{variant}" for variant in sweep.variants] or [name]
                phases = [phase for phase in sweep.phases if phase in self.phases]
                lengths = [MIXED] if sweep.mixed else sweep.configurations
                cells += [Cell(p, v, c, s) for p in phases for c in lengths for v in variants for s in sweep.states]
        return cells

    def kinds_of(self, cell: Cell) -> list[Kind]:
        """What a process of this cell measures: its own state, then its partners', of its lengths."""
        protocol = self.protocol_of(cell)
        partners = [state for state in protocol["partners"] if state != cell.state] if protocol["content"] == "fresh" else []
        lengths = self.sweeps[cell.sweep].configurations if cell.configuration == MIXED else [cell.configuration]
        return [Kind(configuration=c, lengths=self.lengths_of(c), state=s) for s in [cell.state, *partners] for c in lengths]

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
        if registry.phases()[cell.phase].interface == "python":
            values["request_form"] = "tokens"
        return values

    def settings_of(self, cell: Cell) -> EngineSettings:
        """The engine's settings for a cell."""
        engine = registry.phases()[cell.phase].engine
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
