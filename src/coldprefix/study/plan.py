"""The plan: what the configuration asks for on this machine, as a job for each cell.

The rules of the workflow know a cell by its digest; its program reads its job from the plan, which is one file. Aggregation compares
each cell's record with it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of, write_json
from coldprefix.job import Cell, Job, ModelUse
from coldprefix.measure import edits
from coldprefix.models.contract import ModelEntry
from coldprefix.setup.environments import environment_key
from coldprefix.study import registry
from coldprefix.study.code import digest
from coldprefix.study.config import Config
from coldprefix.study.machine import resolve_accelerator, resolve_threads

# Of a job that only reads the settings of a phase. Always the same, so that changing those of the cells does not start the engines again.
PREFLIGHT = {"trials": 1, "burn_in": 0, "processes": 1, "partners": [], "settle_ms": 0, "stream_tokens": 2, "seed": 0, "content": "fresh"}
PREFLIGHT |= {"reset": "never", "max_rejected": 0.0, "request_form": "tokens", "answers": "agree"}


@dataclass(frozen=True)
class Plan:
    """The jobs of a configuration.

    Attributes:
        jobs: by cell, in the order of the configuration.
        preflights: a job for each phase and model, with the top-level settings (of a sweep's own model: the sweep's); by the phase, of further models by phase-model.
    """

    config: Config
    jobs: dict[str, Job]
    preflights: dict[str, Job]

    @property
    def phases(self) -> list[str]:
        """The phases of all cells."""
        return list(dict.fromkeys(job.phase for job in self.jobs.values()))

    @property
    def accelerator(self) -> str:
        """Where the engines run: "cpu" or "cuda"."""
        return resolve_accelerator(self.config.accelerator)

    @cached_property
    def _cells(self) -> dict[tuple[str, str], list[str]]:
        found: dict[tuple[str, str], list[str]] = {}
        for cell, job in self.jobs.items():
            found.setdefault((job.sweep, job.phase), []).append(cell)
        return found

    def cells(self, *experiments: str, phases: Sequence[str] | None = None) -> list[str]:
        """The cells of these experiments (main, or a sweep's name; all if none is named), in the order of the plan."""
        wanted = phases if phases is not None else self.phases
        keys = [key for key in self._cells if key[1] in wanted and (not experiments or key[0] in experiments)]
        return [cell for key in keys for cell in self._cells[key]]

    def job(self, cell: str) -> Job:
        """Raises ColdprefixError if the configuration has no such cell."""
        if cell not in self.jobs:
            raise ColdprefixError(f"config.yaml has no cell {cell}")
        return self.jobs[cell]

    @property
    def states(self) -> list[str]:
        """The states of all cells."""
        return list(dict.fromkeys(job.state for job in self.jobs.values()))

    @cached_property
    def order(self) -> list[str]:
        """The cells in the order in which they are measured: seeded, so that no state, length or phase comes first by rule. Cells that
        share a server stay together."""
        groups: dict[str, list[str]] = {}
        for cell, job in self.jobs.items():
            server = json.dumps([job.phase, job.model.name, job.settings])
            groups.setdefault(server if registry.engine(job.engine).shares_server(job) else cell, []).append(cell)
        chance = random.Random(self.config.seed)
        listed = list(groups.values())
        chance.shuffle(listed)
        for group in listed:
            chance.shuffle(group)
        return [cell for group in listed for cell in group]

    @cached_property
    def _ranks(self) -> dict[str, float]:
        return {cell: 50 - 10 * place / len(self.order) for place, cell in enumerate(self.order)}

    def rank(self, cell: str) -> float:
        """Its priority: from 50 down, above 40, in the order of measuring. Raises ColdprefixError if the configuration has no such cell."""
        self.job(cell)
        return self._ranks[cell]

    def in_environment(self, name: str) -> Job:
        """A preflight that runs in the environment of this name: its engine and keys are those of all that do."""
        return next(job for job in self.preflights.values() if job.environment == name)

    def setup_records(self) -> list[str]:
        """The records of everything that the phases need before they can run."""
        needs = []
        for job in self.preflights.values():
            if registry.engine(job.engine).weights == "served":
                continue
            needs += [f"results/setup/environments/{job.environment}.json", f"results/setup/models/{job.model.name}.json"]
            if registry.engine(job.engine).weights == "gguf":
                needs.append(f"results/setup/gguf/{job.model.name}.json")
        return list(dict.fromkeys(needs))

    def figures(self) -> dict[str, registry.Drawn]:
        """The figures that can be drawn from the experiments that the configuration asks for."""

        def can_be_drawn(figure: registry.Drawn) -> bool:
            phases = [figure.phase] if figure.phase else None
            return all(self.cells(experiment, phases=phases) for experiment in figure.experiments)

        return {name: figure for name, figure in registry.figures().items() if can_be_drawn(figure)}

    def write(self, path: Path) -> None:
        """Write what the programs read: {"cells", "preflight"}: jobs by name; "models": entries by name; "experiments": cells by name;
        "lengths" of the configurations; "figures": how they look; "vary": what may differ between cells."""
        content: dict[str, Any] = {
            "cells": {cell: job.model_dump(mode="json") for cell, job in self.jobs.items()},
            "preflight": {phase: job.model_dump(mode="json") for phase, job in self.preflights.items()},
            "models": {name: entry.model_dump(mode="json") for name, entry in self.config.models.items()},
            "experiments": {name: self.cells(name) for name in self.config.experiments},
            "lengths": {name: self.config.lengths_of(name).model_dump() for name in self.config.configurations},
            "figures": self.config.figures.model_dump(mode="json"),
            "vary": self.config.vary,
        }
        write_json(path, content)


def plan_of(config: Config) -> Plan:
    """The plan of a configuration on this machine."""
    jobs = {cell.path: job_of(config, cell) for cell in config.all_cells()}
    first: dict[str, Job] = {}
    for job in jobs.values():
        named = first.setdefault(job.phase, job).model.name == job.model.name
        first.setdefault(job.phase if named else f"{job.phase}-{job.model.name}", job)
    return Plan(config, jobs, {name: _preflight(config, job) for name, job in first.items()})


def job_of(config: Config, cell: Cell) -> Job:
    """The job that measures one cell under this configuration on this machine."""
    backend = registry.backend_of(cell.phase)
    served = registry.engine(backend.engine).weights == "served"
    accelerator = "unknown" if served else resolve_accelerator(config.accelerator)
    kinds = config.kinds_of(cell)
    return Job.model_validate(
        {
            "phase": cell.phase,
            "sweep": cell.sweep,
            "variant": cell.variant,
            "configuration": cell.configuration,
            "state": cell.state,
            "engine": backend.engine,
            "interface": backend.interface,
            "kinds": [kind.model_dump() for kind in kinds],
            "model": _model_use(config.model_of(cell), config.models[config.model_of(cell)], backend.engine),
            "accelerator": accelerator,
            "threads": 0 if served else resolve_threads(config.threads),
            "protocol": config.protocol_of(cell),
            "settings": config.settings_of(cell).model_dump(mode="json"),
            **_engine_use(backend.engine, accelerator),
            "code": _code(backend.engine, ",".join(sorted({edits.name_of(kind.state) for kind in kinds}))),
        }
    )


def _code(engine: str, states: str) -> str:
    """Digest of what measures with an engine. An endpoint may be a server of any other one."""
    if registry.engine(engine).weights != "served":
        return digest("measure", engine=engine, states=states)
    return sha256_of(" ".join(digest("measure", engine=name, states=states) for name in (engine, *registry.ENGINES)).encode())[:32]


def _model_use(name: str, entry: ModelEntry, engine: str) -> ModelUse:
    kept = {"source", "positions", "vocabulary"}
    gguf_type = entry.gguf_type if registry.engine(engine).weights == "gguf" else None
    own = {"random_weights": entry.random_weights, "identity": entry.identity, "gguf_type": gguf_type}
    return ModelUse.model_validate({"name": name, **own, **entry.model_dump(include=kept)})


@cache
def _engine_use(name: str, accelerator: str) -> dict[str, str]:
    engine = registry.engine(name)
    environment = engine.environment(accelerator)
    keys = {"environment_key": environment_key(environment), "engine_key": engine.built_from(accelerator)}
    return {"environment": environment, **keys}


def _preflight(config: Config, job: Job) -> Job:
    """A job for reading the settings of a phase: the top-level ones of config.yaml; for a model that only a sweep names, those that it
    gives it, since others may not run it."""
    served = registry.engine(job.engine).weights == "served"
    own = not served and job.model.name == config.phase_models.get(job.phase, config.model)
    changes: dict[str, Any] = {
        "sweep": "main",
        "variant": "main",
        "configuration": "A128_B128",
        "state": registry.EDITS[0],
        "kinds": [{"configuration": "A128_B128", "lengths": {"A": 128, "B": 128, "Q": 8}, "state": registry.EDITS[0]}],
        "settings": getattr(config, job.engine).model_dump(mode="json") if own else job.settings,
        # What does not report its reuse is refused now, or kept as unverified, as the cells want it.
        "protocol": job.protocol.model_dump() | PREFLIGHT | ({"max_rejected": job.protocol.max_rejected} if served else {}),
        "code": _code(job.engine, registry.EDITS[0]),
    }
    return Job.model_validate(job.model_dump() | changes)
