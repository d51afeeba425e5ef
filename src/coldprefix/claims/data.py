"""What is in the data: cells, and the trials of one that a test looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from coldprefix.analysis.statistics import FEWEST_PROCESSES, FEWEST_TRIALS, Scale, estimate
from coldprefix.claims.effect import Effect, measured
from coldprefix.job import cell_of
from coldprefix.strict import Strict
from coldprefix.study.config import EnginePhase, State

VALUE = "value"  # the column of a sample that is looked at


class CellName(Strict):
    """A cell of trials.parquet, as claims.yaml writes it."""

    phase: EnginePhase
    variant: str = "main"
    configuration: str
    state: State

    def __str__(self) -> str:
        return f"{self.phase}/{self.variant}/{self.configuration}/{self.state}"


@dataclass(frozen=True)
class Sample:
    """The trials of one cell that count for a column, wherever they were measured: in the cell's own job or as a partner of another's.

    Attributes:
        trials: columns of tables.TRIALS, and VALUE.
        cell: its name.
        missing: why there are too few of them, if so.
        scale: of the mean over processes; counts and shares are linear, and so exact where all are equal; None: as the values allow.
    """

    trials: pl.DataFrame
    cell: str
    missing: str | None
    scale: Scale | None

    @property
    def n(self) -> int:
        return self.trials.height

    @property
    def effect(self) -> Effect | None:
        """The median over engine processes; None without a trial."""
        return measured(lambda confidence: estimate(self.trials, VALUE, self.scale, confidence))

    @property
    def median(self) -> float:
        """The same without an interval; not a number without a trial."""
        found = self.effect
        return float("nan") if found is None else found.value


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

    def sample(self, cell: CellName, column: str, of: str | None = None, unverified: bool = False, from_trial: int = 0) -> Sample:
        """The trials of a cell that have a value of ``column``.

        Args:
            of: another column, in % of which it is taken.
            unverified: rejected trials count, too.
            from_trial: the first trial of each process that counts.
        """
        counted = self.counted(cell)
        value = pl.col(column).cast(pl.Float64)
        used = counted.filter(pl.col("trial") >= from_trial, pl.lit(unverified) | pl.col("valid"))
        used = used.with_columns((100 * value / pl.col(of) if of else value).alias(VALUE)).drop_nulls(VALUE)
        scale: Scale | None = None if of is None and column.endswith(("_ms", "_s")) else "linear"
        return Sample(used, str(cell), _missing(cell, counted.height, used, column), scale)

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


def _missing(cell: CellName, measured_trials: int, used: pl.DataFrame, column: str) -> str | None:
    """Why an interval cannot be had; None if it can."""
    if not measured_trials:
        return f"{cell} was not measured"
    processes = used["engine_process"].n_unique()
    if processes >= FEWEST_PROCESSES and used.height >= FEWEST_TRIALS:
        return None
    what = f"{cell} has {used.height} usable trials of {measured_trials} with {column}, of {processes} engine processes"
    return f"{what}; {needed()}"


def needed() -> str:
    """What an interval needs."""
    return f"an interval needs {FEWEST_TRIALS} of {FEWEST_PROCESSES}"
