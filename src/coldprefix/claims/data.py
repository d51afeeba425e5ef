"""What is in the data: cells, their samples, and effects with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from coldprefix.analysis.statistics import Values, groups, pooled
from coldprefix.job import cell_of
from coldprefix.strict import Strict
from coldprefix.study.config import PhaseName, State

ENOUGH = 3  # valid trials that an interval needs


class CellName(Strict):
    """A cell of trials.parquet, as claims.yaml writes it."""

    phase: PhaseName
    variant: str = "main"
    configuration: str
    state: State

    def __str__(self) -> str:
        return f"{self.phase}/{self.variant}/{self.configuration}/{self.state}"


@dataclass(frozen=True)
class Effect:
    """A number with its 95 % interval; None where there are too few trials for one."""

    value: float
    low: float | None
    high: float | None

    def map(self, function: Callable[[float], float]) -> Effect:
        """The effect of a monotonic function of it; a falling one swaps the ends."""
        ends = sorted(function(v) for v in (self.low, self.high) if v is not None)
        return Effect(function(self.value), *ends) if len(ends) == 2 else Effect(function(self.value), None, None)


@dataclass(frozen=True)
class Sample:
    """Values of one column in one cell, and why there are too few of them, if so."""

    values: Values
    cell: str
    missing: str | None
    groups: list[Values]  # the same, an array for each replicate

    @property
    def median(self) -> float:
        return float(np.median(self.values))


@dataclass(frozen=True)
class Data:
    """What claims are tested on.

    Attributes:
        trials: tables.TRIALS.
        provenance: the cells' records (measure/provenance.py).
        converter: {"architecture", "returncode", "message"}: what llama.cpp's converter said; None if it was not run.
    """

    trials: pl.DataFrame
    provenance: Sequence[Mapping[str, Any]]
    converter: Mapping[str, Any] | None

    def counted(self, cell: CellName) -> pl.DataFrame:
        """All trials of a cell after the burn-in, rejected ones included."""
        keys = [pl.col(key) == value for key, value in cell.model_dump().items()]
        return self.trials.filter(~pl.col("burn_in"), *keys)

    def sample(self, cell: CellName, column: str, unverified: bool = False, from_trial: int = 0) -> Sample:
        """Values of ``column`` in the valid trials of a cell; with ``unverified`` in the rejected ones, too."""
        counted = self.counted(cell)
        used = counted.filter(pl.col("trial") >= from_trial, pl.lit(unverified) | pl.col("valid"))
        by_replicate = groups(used.with_columns(pl.col(column).cast(pl.Float64)), column)
        values = pooled(by_replicate)
        missing = None
        if counted.is_empty():
            missing = f"{cell} was not measured"
        elif len(values) < ENOUGH:
            missing = f"{cell} has {len(values)} usable trials of {len(counted)} with {column}, an interval needs {ENOUGH}"
        return Sample(values, str(cell), missing, by_replicate)

    def cells(self, phases: Sequence[str], variant: str, configurations: Sequence[str], state: str) -> list[CellName]:
        """Phases x configurations; without configurations, those that the variant was measured with in any phase ("*" if none)."""
        of_variant = self.trials.filter(pl.col("variant") == variant)["configuration"].unique(maintain_order=True).to_list()
        names = list(configurations) or of_variant or ["*"]
        return [CellName(phase=p, variant=variant, configuration=c, state=state) for p in phases for c in names]

    def in_force(self, phase: str, variants: Sequence[str], key: str) -> list[tuple[str, Any]]:
        """(cell, value) of a setting as the engine reported it, for each record that has it; all variants if none is named."""
        found = []
        for record in self.provenance:
            job = record["job"]
            if job["phase"] == phase and (not variants or job["variant"] in variants) and record["in_force"].get(key) is not None:
                found.append(("/".join(cell_of(job)), record["in_force"][key]))
        return found
