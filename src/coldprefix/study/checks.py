"""Reads a configuration, and refuses values that cannot be combined: one line for each, with the key's path and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from coldprefix.errors import ColdprefixError
from coldprefix.job import Cell
from coldprefix.strict import explain, suggest
from coldprefix.study import registry
from coldprefix.study.by_path import with_models_by_path
from coldprefix.study.config import Config, matches


def parse(values: Mapping[str, Any]) -> Config:
    """Check a configuration as Snakemake or YAML read it.

    Raises:
        ColdprefixError: lists every mistake with its path and a correction.
    """
    try:
        config: Config = Config.model_validate(with_models_by_path(values))
        lines = list(problems(config))
    except ValidationError as error:
        lines = explain(error, Config)
    except ColdprefixError as error:
        lines = [str(error)]
    if lines:
        raise ColdprefixError("the configuration cannot be used:\n" + "\n".join(f"  {line}" for line in lines))
    return config


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


def problems(config: Config) -> Iterator[str]:
    """What cannot work, one line per problem."""
    yield from _names(config)
    cells = config.all_cells()
    if not cells:
        yield f"experiments: {config.experiments} have no cell with the phases {config.phases}; name a phase of theirs"
    used = {name: config.models[name] for name in (config.model_of(cell.phase) for cell in cells) if name in config.models}
    absent = [f"models.{name}.{problem}" for name, entry in used.items() for problem in entry.missing()]
    if absent:  # the rest is about what such a model says of itself
        yield from absent
        return
    yield from _refusals(config, cells)
    yield from dict.fromkeys(problem for cell in cells for problem in _of_cell(config, cell))
    for name, entry in config.models.items():
        yield from (f"models.{name}.{problem}" for problem in entry.problems())
    yield from _patterns(config, cells)


def _names(config: Config) -> Iterator[str]:
    for key in ("experiments", "phases", "states", "configurations"):
        listed = getattr(config, key)
        if len(set(listed)) < len(listed):
            yield f"{key}: {listed} names something twice; write each once"
    for key, name in [("model", config.model), *((f"phase_models.{phase}", name) for phase, name in config.phase_models.items())]:
        if name not in config.models:
            yield f"{key}: there is no model {name!r}{suggest(name, config.models)}; the models are {', '.join(config.models)}"
    for name in config.experiments:
        if name != "main" and name not in config.sweeps:
            choices = ["main", *config.sweeps]
            yield f"experiments: there is no sweep {name!r}{suggest(name, choices)}; the experiments are {', '.join(choices)}"
    if "main" in config.sweeps:
        yield "sweeps.main: the name main is taken by the main experiment; choose another"


def _refusals(config: Config, cells: list[Cell]) -> Iterator[str]:
    """Models that an engine is known not to run."""
    measured = list(dict.fromkeys(cell.phase for cell in cells))
    for phase in measured:
        engine = registry.engine(registry.phases()[phase].engine)
        name = config.model_of(phase)
        entry = config.models.get(name)
        key = f"phase_models.{phase}" if phase in config.phase_models else "model"
        if entry is not None and engine.weights not in entry.offers:
            kind = f"it is quantised to {entry.quantise}" if entry.quantise else "it is a GGUF file"
            able = ",".join(p for p in measured if registry.engine(registry.phases()[p].engine).weights in entry.offers)
            yield (
                f"{key}: {phase} runs {engine.title}, which loads {engine.weights}, and {name} has none ({kind}); "
                f"leave {phase} out{f' (phases={able})' if able else ''}, or name another model for it in phase_models"
            )
        elif entry is not None and entry.architecture in engine.refuses:
            yield (
                f"{key}: {phase} runs {engine.title}, which cannot run {name} ({engine.refuses[entry.architecture]}); "
                f"write phase_models: {{{phase}: gpt2-standin}}, or leave {phase} out of phases"
            )


def _of_cell(config: Config, cell: Cell) -> Iterator[str]:
    """Problems of one cell with its model and its values."""
    engine = registry.engine(registry.phases()[cell.phase].engine)
    key = "" if cell.variant == "main" else f"sweeps.{cell.sweep}."
    protocol, settings = config.protocol_of(cell), config.settings_of(cell)
    yield from (f"{key}{engine.name}.{problem}" for problem in engine.problems(settings))
    unknown = [state for state in protocol["partners"] if state not in registry.EDITS]
    if unknown:
        choices = list(registry.EDITS)
        yield f"{key}partners: there is no state {unknown[0]!r}{suggest(unknown[0], choices)}; the states are {', '.join(choices)}"
        return
    kinds = config.kinds_of(cell)
    shapes = [(kind, *registry.edit(kind.state).shape(*kind.lengths.model_dump().values())) for kind in kinds]
    for kind, _, shared in shapes:
        if shared and not getattr(settings, engine.caching):
            where = "states: [miss]" if kind.state == cell.state else "leave it out of partners"
            yield f"{key}{engine.name}.{engine.caching}: false makes every {kind.state} a miss; write true, or {where}"
    name = config.model_of(cell.phase)
    entry = config.models.get(name)
    if entry is None or protocol["max_rejected"] == 1:  # where all may be rejected, an engine's refusal is a result
        return
    context = settings.context_of(entry.positions)
    limit = f"{entry.positions} positions of {name}" if context == entry.positions else f"{engine.name}.context_tokens"
    for kind, query, _ in shapes:
        needed = max(kind.lengths.A + kind.lengths.B, query) + protocol["stream_tokens"]
        if needed <= context:
            continue
        parts = "A + B + question_tokens + stream_tokens"
        yield (
            f"{key}configurations: {kind.configuration}: {parts} = {needed} tokens do not fit the {context} tokens of "
            f"{cell.phase} ({limit}); shorten them by {needed - context}"
        )


def _patterns(config: Config, cells: list[Cell]) -> Iterator[str]:
    for pattern in config.cells:
        parts = pattern.split("/")
        known = len(parts) == 3 and parts[0] in ("*", *registry.phases()) and parts[2] in ("*", *registry.EDITS)
        if not known:
            yield f'cells: {pattern!r} is not phase/configuration/state; write for example "phase3b/A512_B256/miss" or "*/*/miss"'
        elif parts[1] not in ("*", *config.configurations) and not any(matches(pattern, cell) for cell in cells):
            yield f"cells: {pattern!r} matches no cell; the cells are made of {list(config.phases)} x {list(config.configurations)} x {list(config.states)}"
