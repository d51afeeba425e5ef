"""Is TTFT a straight line in the tokens that are computed?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from coldprefix.analysis.statistics import Line, Values, estimate, line
from coldprefix.claims.checks import Check
from coldprefix.claims.data import Data, Effect
from coldprefix.claims.parts import Phases
from coldprefix.claims.verdict import Outcome, Part, between, combine, show
from coldprefix.strict import Strict
from coldprefix.study.config import State


class Parameters(Strict):
    """A straight line through the TTFT of all trials, per phase."""

    phases: Phases
    variant: str = "scaling"
    state: State = "miss"
    largest_residual_pct: float = Field(default=10, gt=0)
    from_tokens: int = Field(default=100, ge=0)


class Residual(NamedTuple):
    """How far the median of one length lies from the line.

    Attributes:
        pct: in % of the line.
        beyond: its whole interval lies further away than `largest_residual_pct`.
    """

    tokens: float
    pct: float
    beyond: bool


def linear_in_computed_tokens(p: Parameters, threshold: float, data: Data) -> Outcome:
    """R2 of TTFT against computed tokens, and no length's median further from the line than `largest_residual_pct`, in every phase."""
    parts = [_part(p, phase, threshold, data) for phase in p.phases]
    return combine(parts, threshold, "R2 of a line through TTFT against the tokens computed", "R2")


def _part(p: Parameters, phase: str, threshold: float, data: Data) -> Part:
    cells = data.cells([phase], p.variant, [], p.state)
    used = pl.concat([data.counted(c) for c in cells]).filter("valid").drop_nulls(["ttft_ms", "stream_evaluated_tokens"])
    tokens, ms = used["stream_evaluated_tokens"].cast(pl.Float64).to_numpy(), used["ttft_ms"].to_numpy()
    if len(np.unique(tokens)) < 3 or np.ptp(ms) == 0:
        lengths = f"valid trials of {len(np.unique(tokens))} lengths" if len(tokens) else "no valid trial"
        here = f"{phase}/{p.variant}/*/{p.state}"
        return Part(phase, missing=f"{here} has {lengths}; a line needs 3 lengths and times that differ")
    fit = line(tokens, ms)
    assert fit is not None
    residuals = _residuals(fit, tokens, ms, p.largest_residual_pct)
    judged = [r for r in residuals if r.tokens >= p.from_tokens]
    effect = Effect(*fit.r2)
    agrees, bent = between(effect, threshold, math.inf), ""
    if any(r.beyond for r in judged):
        agrees = False
        bent = ", so the line bends although R2 passes" if effect.low is not None and effect.low >= threshold else ""
    elif any(abs(r.pct) > p.largest_residual_pct for r in judged) or not judged:
        agrees = None if agrees else agrees
    names = used["configuration"].unique(maintain_order=True)
    return Part(
        phase, agrees, effect, _text(p, fit, residuals, bent), tuple(f"{phase}/{p.variant}/{c}/{p.state}" for c in names), len(used)
    )


def _residuals(fit: Line, tokens: Values, ms: Values, limit_pct: float) -> list[Residual]:
    """One for each length, the shortest first."""
    residuals = []
    for length in np.unique(tokens):
        expected, found = float(fit.at(length)), estimate(ms[tokens == length])
        if expected <= 0:
            residuals.append(Residual(float(length), math.inf, True))
            continue
        ends = [100 * (v / expected - 1) for v in (found.median, found.ci_low, found.ci_high) if v is not None]
        beyond = len(ends) == 3 and between(Effect(*ends), -limit_pct, limit_pct) is False
        residuals.append(Residual(float(length), ends[0], beyond))
    return residuals


def _text(p: Parameters, fit: Line, residuals: list[Residual], bent: str) -> str:
    judged = [r for r in residuals if r.tokens >= p.from_tokens]
    text = f"{show(fit.slope[0])} ms a token from {show(fit.intercept[0])} ms at none"
    if judged:
        worst = max(judged, key=lambda r: abs(r.pct))
        text += f", largest deviation of a median {worst.pct:+.0f} % at {worst.tokens:.0f} tokens"
    broken = [f"{r.tokens:.0f}" for r in judged if abs(r.pct) > p.largest_residual_pct]
    text += f", beyond {show(p.largest_residual_pct)} % at {', '.join(broken)} tokens{bent}" if broken else ""
    return text + "".join(f", not judged: {r.pct:+.0f} % at {r.tokens:.0f} tokens" for r in residuals if r.tokens < p.from_tokens)


CHECK = Check(parameters=Parameters, unit="R2", run=linear_in_computed_tokens)
