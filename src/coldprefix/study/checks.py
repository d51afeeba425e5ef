"""Reads a configuration, and refuses values that cannot be combined: one line for each, with the key's path and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from coldprefix.errors import ColdprefixError
from coldprefix.job import Cell, Kind
from coldprefix.strict import explain, suggest
from coldprefix.study import registry
from coldprefix.study.by_endpoint import with_endpoints
from coldprefix.study.by_layout import with_layout
from coldprefix.study.by_path import with_models_by_path
from coldprefix.study.config import Config, matches
from coldprefix.study.machine import resolve_accelerator


def parse(values: Mapping[str, Any]) -> Config:
    """Check a configuration as Snakemake or YAML read it.

    Raises:
        ColdprefixError: lists every mistake with its path and a correction.
    """
    try:
        config: Config = Config.model_validate(with_endpoints(with_layout(with_models_by_path(values))))
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
    used = {name: config.models[name] for name in map(config.model_of, cells) if name in config.models}
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
    named = [("model", config.model), *((f"phase_models.{phase}", name) for phase, name in config.phase_models.items())]
    for sweep, own in config.sweeps.items():
        changes = {f"sweeps.{sweep}": own} | {f"sweeps.{sweep}.variants.{name}": variant for name, variant in own.variants.items()}
        named += [(f"{key}.model", change.model) for key, change in changes.items() if change.model]
    for key, name in named:
        if name not in config.models:
            yield f"{key}: there is no model {name!r}{suggest(name, config.models)}; the models are {', '.join(config.models)}"
    if config.layout and "layout" not in config.experiments:
        yield "layout: the advice needs the experiment layout, which is not asked for; write experiments=layout"
    if config.layout and config.vary:
        yield "layout: the advice is for one machine; leave vary: host out"
    for name in config.experiments:
        if name != "main" and name not in config.sweeps:
            choices = ["main", *config.sweeps]
            yield f"experiments: there is no sweep {name!r}{suggest(name, choices)}; the experiments are {', '.join(choices)}"
    if "main" in config.sweeps:
        yield "sweeps.main: the name main is taken by the main experiment; choose another"


def _refusals(config: Config, cells: list[Cell]) -> Iterator[str]:
    """Models that an engine cannot load, or is known not to run."""
    measured = list(dict.fromkeys(cell.phase for cell in cells))
    for phase, name, variant in dict.fromkeys((cell.phase, config.model_of(cell), cell.variant) for cell in cells):
        engine = registry.engine(registry.backend_of(phase).engine)
        entry = config.models.get(name)
        own = name != config.phase_models.get(phase, config.model)
        key = f"sweeps.{variant}.model" if own else f"phase_models.{phase}" if phase in config.phase_models else "model"
        if entry is not None and engine.weights not in entry.offers:
            kind = f"it is quantised to {entry.quantise}" if entry.quantise else "it is a GGUF file"
            able = ",".join(p for p in measured if registry.engine(registry.backend_of(p).engine).weights in entry.offers)
            yield (
                f"{key}: {phase} runs {engine.title}, which loads {engine.weights}, and {name} has none ({kind}); "
                f"leave {phase} out{f' (phases={able})' if able else ''}, or name another model for it in phase_models"
            )
        elif entry is not None and entry.architecture in (refused := engine.refusals(resolve_accelerator(config.accelerator))):
            instead = (
                f"leave {phase} out of phases" if own else f"write phase_models: {{{phase}: gpt2-standin}}, or leave {phase} out of phases"
            )
            yield f"{key}: {phase} runs {engine.title}, which cannot run {name} ({refused[entry.architecture]}); {instead}"


def _of_cell(config: Config, cell: Cell) -> Iterator[str]:
    """Problems of one cell with its model and its values."""
    engine = registry.engine(registry.backend_of(cell.phase).engine)
    key = "" if cell.variant == "main" else f"sweeps.{cell.sweep}."
    protocol, settings = config.protocol_of(cell), config.settings_of(cell)
    yield from (f"{key}{engine.name}.{problem}" for problem in engine.problems(settings, registry.backend_of(cell.phase).interface))
    wrong = [problem for state in protocol["partners"] if (problem := _wrong(state))]
    if wrong:
        yield from (f"{key}partners: {problem}" for problem in wrong)
        return
    shapes = []
    for kind in config.kinds_of(cell):
        try:
            shapes.append((kind, *registry.edit(kind.state).shape(*kind.lengths.model_dump().values())))
        except ValueError as error:
            where = "states" if kind.state == cell.state else "partners"
            yield f"{key}{where}: {kind.state} of {kind.configuration}: {error}"
    for kind, _, shared in shapes:
        if shared and not getattr(settings, engine.caching):
            where = "states: [miss]" if kind.state == cell.state else "leave it out of partners"
            yield f"{key}{engine.name}.{engine.caching}: false makes every {kind.state} a miss; write true, or {where}"
    if protocol["max_rejected"] < 1:
        yield from (f"{key}{problem}" for problem in _no_hits(config, cell, shapes))
    name = config.model_of(cell)
    entry = config.models.get(name)
    if entry is None or protocol["max_rejected"] == 1:  # where all may be rejected, an engine's refusal is a result
        return
    context = settings.context_of(entry.positions)
    small = engine.too_small(settings, context, resolve_accelerator(config.accelerator))
    yield from (f"{key}{engine.name}.{problem}" for problem in small)
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


def _no_hits(config: Config, cell: Cell, shapes: list[tuple[Kind, int, int]]) -> Iterator[str]:
    """Hits that are too short to reuse anything."""
    for kind, query, shared in shapes:
        least = config.least_reuse(cell)
        if registry.edit(kind.state).keeps and min(shared, query - 1) < least:
            yield (
                f"configurations: {kind.configuration}: a {kind.state} of {shared} tokens reuses nothing on {cell.phase}, which reuses whole "
                f"blocks of {least}; write at least {least} tokens for A + B"
            )


def _patterns(config: Config, cells: list[Cell]) -> Iterator[str]:
    for pattern in config.cells:
        parts = pattern.split("/")
        known = len(parts) == 3 and parts[0] in ("*", *registry.phases(), *config.endpoints) and (parts[2] == "*" or not _wrong(parts[2]))
        if not known:
            yield f'cells: {pattern!r} is not phase/configuration/state; write for example "phase3b/A512_B256/miss" or "*/*/miss"'
        elif parts[1] not in ("*", *config.configurations) and not any(matches(pattern, cell) for cell in cells):
            yield f"cells: {pattern!r} matches no cell; the cells are made of {list(config.phases)} x {list(config.configurations)} x {list(config.states)}"


def _wrong(state: str) -> str | None:
    """What is wrong with a state, or None."""
    try:
        registry.edit(state)
    except ValueError as error:
        return str(error)
    return None
