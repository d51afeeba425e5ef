"""How many bytes of KV a token takes, as the engine reports it."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from coldprefix.claims.checks import Check
from coldprefix.claims.data import Data
from coldprefix.claims.effect import Effect, inside
from coldprefix.claims.parts import Phases
from coldprefix.claims.verdict import Outcome, Part, combine, show
from coldprefix.strict import Strict


class Parameters(Strict):
    """KV memory, as the engine reports it."""

    phases: Phases
    models: tuple[str, ...] = Field(min_length=1)
    bytes_per_token: int = Field(gt=0)
    cells: int = Field(default=2048, gt=0)


def kv_bytes_per_token(p: Parameters, threshold: float, data: Data) -> Outcome:
    """Bytes of KV per token that the engines report, less `bytes_per_token`: no further from 0 than the threshold, in every cell."""
    parts = [_part(p, phase, threshold, data) for phase in p.phases]
    return combine(parts, threshold, f"Bytes of KV per token, less {p.bytes_per_token:,}", "bytes")


def _part(p: Parameters, phase: str, threshold: float, data: Data) -> Part:
    records = [r for r in data.provenance if r["job"]["phase"] == phase]
    models = {str(r["job"]["model"]["name"]) for r in records}
    values = data.in_force(phase, (), "kv_bytes_per_token")
    if not models & set(p.models) or not values:
        ran = f"ran {', '.join(sorted(models))}" if models else "was not measured"
        return Part(phase, missing=f"{phase} {ran}; the claim is about {' and '.join(p.models)}, as an engine reports it")
    bytes_found = [float(value) for _, value in values]
    middle = float(np.median(bytes_found))
    difference = Effect(middle, min(bytes_found), max(bytes_found)).map(lambda found: found - p.bytes_per_token)
    total = middle * p.cells / 2**20
    text = f"{show(middle)} bytes reported in {len(values)} cells, that is {show(total)} MiB for {p.cells} tokens by arithmetic"
    positions = min(int(r["job"]["model"]["positions"]) for r in records)
    text += f", of which this model can use {positions}" if positions < p.cells else ""
    agrees = inside(-threshold, threshold)  # each cell is a reading of its own, so the ends are exact
    return Part(phase, agrees, difference, text, tuple(cell for cell, _ in values), len(values))


CHECK = Check(parameters=Parameters, unit="bytes", run=kv_bytes_per_token, counts=True)
