"""What a configuration can name: a line for each. docs/extending.md shows what to write beside the line.

A cell's program imports none of this, so that adding a line measures nothing again.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import NamedTuple

from coldprefix.engines import contract
from coldprefix.measure import edits
from coldprefix.models.contract import ModelEntry
from coldprefix.strict import suggest

# Folders of engines/, each with an ENGINE in engine.py.
ENGINES = (
    "vllm",
    "llamacpp",
)
# Files of measure/edits/, each with an EDIT: the cache states. The first is what the others are compared with.
EDITS = (
    "hit",
    "miss",
    "cold",
    "substitute",
    "insert",
    "delete",
    "swap",
    "truncate",
    "prepend",
    "foreign",
)
# Files of models/, and the class in each that is the type of its entries.
SOURCES = {
    "standin": "StandinModel",
    "shapes": "ShapesModel",
    "hub": "HubModel",
    "folder": "FolderModel",
    "gguf": "GgufModel",
    "endpoint": "EndpointModel",
}
# Files of figures/, and the experiments that each shows; phase_panels is drawn for each phase.
FIGURES = {
    "fig1_invalidation": ("main",),
    "fig2_scaling": ("scaling",),
    "fig3_architectures": ("architectures",),
    "fig3_backends": ("main", "confound"),
    "fig4_cascade": ("main", "host_tier"),
    "fig5_batch_size": ("batch_size",),
    "fig6_confound": ("confound",),
    "fig7_depth": ("depth",),
    "fig8_edits": ("edits",),
    "fig9_granularity": ("granularity",),
    "fig10_eviction": ("eviction",),
    "fig11_tier": ("tier",),
    "phase_panels": ("main",),
}
PANELS = "phase_panels"
# Files of claims/checks/, each with a CHECK: the tests that claims.yaml can name.
CHECKS = (
    "ratio",
    "miss_over_hit",
    "reuse",
    "linear_in_computed_tokens",
    "explains_gap",
    "converter_accepts",
    "overhead_hides_cost",
    "binaries_explain_gap",
    "absorbs_invalidation",
    "reused_share",
    "miss_destroys",
    "original_report",
    "kv_bytes_per_token",
    "slots_evict_prefix",
)


class Drawn(NamedTuple):
    """A figure of a study: its file in figures/, the experiments that it shows, and the one phase that it is about (None: all)."""

    module: str
    experiments: tuple[str, ...]
    phase: str | None


class Backend(NamedTuple):
    """An engine by one of its interfaces."""

    engine: str
    interface: str


def engine(name: str) -> contract.Engine:
    """The engine of this name."""
    return contract.load(name)


def edit(state: str) -> edits.Edit:
    """The edit of a state. Raises ValueError where there is none, with what to write."""
    name = edits.name_of(state)
    if name not in EDITS:
        raise ValueError(f"there is no state {state!r}{suggest(name, EDITS)}; the states are {', '.join(edits.forms(EDITS))}")
    return edits.load(state)


def in_order(states: Iterable[str]) -> list[str]:
    """States in the order of EDITS, those of one edit as they come."""
    return sorted(dict.fromkeys(states), key=lambda state: EDITS.index(edits.name_of(state)))


def source(name: str) -> type[ModelEntry]:
    """The type of the entries of a model source."""
    found: type[ModelEntry] = getattr(import_module(f"coldprefix.models.{name}"), SOURCES[name])
    return found


@cache
def phases() -> dict[str, Backend]:
    """phase: backend, in the order of the study."""
    found = {own.phase: Backend(name, interface) for name in ENGINES for interface, own in engine(name).interfaces.items()}
    return dict(sorted(found.items()))


def backend_of(phase: str) -> Backend:
    """A phase's backend. What is none of `phases` is an entry of `endpoints`; the configuration has seen to that."""
    return phases().get(phase, Backend("endpoint", "http"))


def interface_of(phase: str) -> contract.Interface:
    """How a backend is drawn, and its phase."""
    backend = phases()[phase]
    return engine(backend.engine).interfaces[backend.interface]


def figures() -> dict[str, Drawn]:
    """All figures by name: those of FIGURES, one for each phase in the place of phase_panels."""
    found = {name: Drawn(name, experiments, None) for name, experiments in FIGURES.items() if name != PANELS}
    return found | {f"{phase}_panels": Drawn(PANELS, FIGURES[PANELS], phase) for phase in phases()}
