"""Where the wall time of a run went, from the provenance of its cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

PAUSE_S = 60.0  # more than this between two cells is no part of a run
PARTS = {
    "computing": "engine computing",
    "starting": "engine starting",
    "settling": "settling",
    "harness": "harness",
}


def breakdown(provenance: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per phase, and one of all cells: seconds of the measuring jobs by what they went to.

    Each row has phase, cells, job_s (start of the measuring program to the end of its measurement) and the parts of it: computing (requests
    being answered), starting (engine), settling (pauses of the protocol), harness (the rest: imports, prompts, waiting for the
    engine to end).
    """
    phases = list(dict.fromkeys(record["job"]["phase"] for record in provenance))
    return [_row(phase, [r for r in provenance if r["job"]["phase"] == phase]) for phase in phases] + [_row("all", provenance)]


def _row(phase: str, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    job_s = sum(r["job_s"] for r in records)
    parts = {
        "computing": sum(r["engine_busy_s"] for r in records),
        "starting": sum(sum(r["engine_start_s"]) for r in records),
        "settling": sum(r["settle_s"] for r in records),
    }
    return {"phase": phase, "cells": len(records), "job_s": job_s, **parts, "harness": job_s - sum(parts.values())}


def between(provenance: Sequence[Mapping[str, Any]]) -> tuple[float, int]:
    """Seconds between one measuring job and the next (Snakemake, checking the model's file, ending an engine), and how many times that was.

    Longer pauses are between runs and not counted.
    """
    spans = sorted((_seconds(r["finished_at"]) - r["job_s"], _seconds(r["finished_at"])) for r in provenance)
    gaps = [start - end for (_, end), (start, _) in pairwise(spans)]
    counted = [max(0.0, gap) for gap in gaps if gap < PAUSE_S]
    return sum(counted), len(counted)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def table(provenance: Sequence[Mapping[str, Any]]) -> str:
    """The breakdown for the terminal."""
    lines = [
        "where the time of the measuring jobs went",
        f"{'phase':<9}{'cells':>6}{'minutes':>9}" + "".join(f"{t:>18}" for t in PARTS.values()),
    ]
    for row in breakdown(provenance):
        shares = "".join(f"{row[part] / row['job_s'] if row['job_s'] else 0:>18.0%}" for part in PARTS)
        lines.append(f"{row['phase']:<9}{row['cells']:>6}{row['job_s'] / 60:>9.1f}{shares}")
    seconds, times = between(provenance)
    if times:
        lines.append(f"between jobs (Snakemake): {seconds / 60:.1f} minutes, {seconds / times:.1f} s each")
    return "\n".join(lines) + "\n"
