"""What may be wrong with a cell's numbers although every count is right, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from coldprefix.analysis import statistics
from coldprefix.job import cell_of
from coldprefix.measure.gpu_state import HELD_BACK

# One busy loop beside a 2-thread engine takes half of the machine and adds 70 % to a TTFT; below a twentieth nothing was separable
# from noise. Steal hits harder, since it stops a thread that the others wait for.
BUSY_CPU = 0.05
STOLEN_CPU = 0.02
FREQUENCY_RANGE = 0.10  # between the 5th and the 95th percentile of a cell's trials, as a share of the median
DRIFT = 0.05  # from the first trial to the last, as a share of the median, if a trend is that unlikely to be chance:
DRIFT_P = 0.01
DRIFT_POINTS = 200  # longer series are looked at as medians of so many blocks
THROTTLED = 0.01  # share of the cell's time in which a GPU was throttled
HELD_SAMPLES = 0.1  # share of the looks after the trials in which it was

CAVEATS: dict[str, tuple[pl.DataType, str]] = {
    "cell": (pl.String(), "phase/[variant/]configuration/state"),
    "kind": (pl.String(), "busy, steal, frequency, throttled, drift, pace, few or imprecise"),
    "message": (pl.String(), "what was seen and what to do"),
}


def caveats_of(trials: pl.DataFrame, provenance: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Warnings about cells, one row each (CAVEATS).

    Args:
        trials: tables.TRIALS.
        provenance: the record of each cell; cells without one are judged by their trials alone.
    """
    records = {cell_of(record["job"]).path: record for record in provenance}
    rows = []
    for (name,), own in trials.filter("own").group_by("job", maintain_order=True):
        cell = str(name)
        every = trials.filter("valid", pl.col("job") == name)  # its partners', too: their counts may be as wrong
        found = [*_of_cell(cell, own, records.get(cell)), *_off_pace(every, f"delete results/raw/{cell} and run snakemake again")]
        rows += [{"cell": cell, "kind": kind, "message": text} for kind, text in found]
    return pl.DataFrame(rows, schema={name: dtype for name, (dtype, _) in CAVEATS.items()})


def _of_cell(cell: str, trials: pl.DataFrame, record: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    again = f"delete results/raw/{cell} and run snakemake again"
    valid = trials.filter("valid")
    for column, limit, kind, who, what_to_do in (
        ("foreign_cpu", BUSY_CPU, "busy", "other programs", "end them, then"),
        ("workflow_cpu", BUSY_CPU, "busy", "Snakemake itself", "measure fewer cells in one run:"),
        ("steal_cpu", STOLEN_CPU, "steal", "the hypervisor's other guests", "measure on a machine of your own or at a quieter hour:"),
    ):
        shares = valid[column].drop_nulls().to_numpy()
        if len(shares) and np.median(shares) > limit:
            seen = f"took {np.median(shares):.0%} of the machine's CPU time (median of the trials; at most {shares.max():.0%})"
            yield kind, f"{who} {seen}; {what_to_do} {again}"
    clocks = valid["cpu_mhz"].drop_nulls().to_numpy()
    if len(clocks) >= 3:
        low, middle, high = np.percentile(clocks, [5, 50, 95])
        if high - low > FREQUENCY_RANGE * middle:
            yield (
                "frequency",
                f"the CPUs ran at {low:.0f} to {high:.0f} MHz; fix their clock (cpupower frequency-set -g performance, turbo off), then {again}",
            )
    yield from _throttled(record, again)
    yield from _drift(valid, again)
    expected_to_fail = record is not None and record["job"]["protocol"]["max_rejected"] == 1
    found = statistics.estimate(valid, "ttft_ms")
    if found.low is None and not expected_to_fail:
        counted = trials.filter(~pl.col("burn_in")).height
        yield (
            "few",
            f"{valid.height} valid trials of {counted} in {found.processes} engine processes; an interval needs {statistics.FEWEST_TRIALS} "
            f"of {statistics.FEWEST_PROCESSES}: raise processes or trials",
        )
    asked = record["job"]["protocol"]["processes"] if record else None
    if record is not None and isinstance(asked, Mapping) and len(record["engine_start_s"]) == asked["max"]:
        yield (
            "imprecise",
            f"measured with {asked['max']} engine processes, the most allowed, and maybe not to the {asked['precision']:.1%} asked for: see "
            "the interval; raise processes.max",
        )


def _throttled(record: Mapping[str, Any] | None, again: str) -> Iterator[tuple[str, str]]:
    """From the driver's own counters of the time a GPU was held back, read before and after the cell."""
    if record is None:
        return
    for before, after in zip(record["host"]["gpus"], record.get("gpus_after", []), strict=False):
        for policy, cure in (("thermal", "cool it or lower its clocks (nvidia-smi -lgc)"), ("power", "fix its clocks (nvidia-smi -lgc)")):
            key = f"{policy}_violation_ns"
            if before.get(key) is None or after.get(key) is None:
                continue
            share = (after[key] - before[key]) / 1e9 / record["wall_s"]
            if share > THROTTLED:
                yield "throttled", f"{after['name']} was throttled for {policy} reasons in {share:.0%} of the time; {cure}, then {again}"
    samples = record.get("gpu_samples") or []
    held = [sample for sample in samples if HELD_BACK & set(sample["reasons"] or ())]
    if len(held) > HELD_SAMPLES * len(samples):
        reasons = ", ".join(sorted({reason for sample in held for reason in sample["reasons"]} & HELD_BACK))
        yield (
            "throttled",
            f"a GPU was held back ({reasons}) after {len(held)} of {len(samples)} trials; cool it or fix its clocks, then {again}",
        )


def _drift(valid: pl.DataFrame, again: str) -> Iterator[tuple[str, str]]:
    """A trend of TTFT over the trials of one engine process: Kendall's test, and the Theil-Sen slope for its size."""
    from scipy.stats import kendalltau, theilslopes

    for (process, _), part in valid.group_by("process", "configuration", maintain_order=True):
        own = part.select("trial", "ttft_ms").drop_nulls()
        ttft = own["ttft_ms"].to_numpy()
        if len(ttft) < statistics.FEWEST_TRIALS or np.ptp(ttft) == 0:
            continue
        trial = own["trial"].to_numpy()
        if len(ttft) > DRIFT_POINTS:  # Theil-Sen compares all pairs
            blocks = zip(np.array_split(trial, DRIFT_POINTS), np.array_split(ttft, DRIFT_POINTS), strict=True)
            trial, ttft = np.array([(np.median(t), np.median(ms)) for t, ms in blocks]).T
        change = float(theilslopes(ttft, trial).slope * np.ptp(trial) / np.median(ttft))
        if abs(change) > DRIFT and kendalltau(trial, ttft).pvalue < DRIFT_P:
            yield (
                "drift",
                f"process {process}: TTFT changes by {change:+.0%} from the first trial to the last; raise burn_in if it settles, "
                f"else look for what else the machine does, then {again}",
            )


def _off_pace(valid: pl.DataFrame, again: str) -> Iterator[tuple[str, str]]:
    """Trials whose engine time does not go with their counts; shown, not dropped."""
    off = valid.filter("off_pace").sort((pl.col("pace").log()).abs(), descending=True)
    if off.is_empty():
        return
    worst = off.row(0, named=True)
    yield (
        "pace",
        f"{off.height} of {valid.height} trials took another engine time for each computed token than the others of their state and lengths, at most {worst['pace']:.2g} times "
        f"theirs ({worst['state']} {worst['configuration']}, process {worst['process']}, trial {worst['trial']}): is the count of reused tokens right, or was the machine busy? They are "
        f"off_pace in trials.parquet, and in the statistics; {again} if it was the machine",
    )


def text(found: pl.DataFrame) -> str:
    """The warnings for the terminal; "" if there are none."""
    return "".join(f"WARNING  {row['cell']}: {row['message']}\n" for row in found.iter_rows(named=True))
