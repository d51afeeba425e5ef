"""The table of claims: a row for each, with its verdict and what that was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from coldprefix.claims.checks import check
from coldprefix.claims.data import Data
from coldprefix.claims.listed import Claim
from coldprefix.data.tables import Columns, schema

# column: (type, what it is)
CLAIMS: Columns = {
    "id": (pl.String(), "as in claims.yaml"),
    "statement": (pl.String(), "the claim, as it was made"),
    "original_status": (pl.String(), "where the original study left it"),
    "figure": (pl.String(), "name of the figure that shows what the claim is about; null if none does"),
    "verdict": (pl.String(), "supported, refuted or not decided"),
    "effect": (pl.Float64(), "what is compared with the threshold; of several parts the one nearest to it; null if not measured"),
    "effect_low": (pl.Float64(), "lower end of its 95 % interval; null below 3 trials"),
    "effect_high": (pl.Float64(), "upper end"),
    "unit": (pl.String(), "of effect and threshold; x is a ratio"),
    "threshold": (pl.Float64(), "stated in claims.yaml, before the measurement"),
    "threshold_reason": (pl.String(), "why this threshold"),
    "finding": (pl.String(), "what was found, in words, with what was not measured"),
    "rows": (pl.List(pl.String()), "cells used: phase/variant/configuration/state; or the record used"),
    "n": (pl.Int32(), "trials used, over all these cells"),
}


def check_all(
    claims: Sequence[Claim], trials: pl.DataFrame, provenance: Sequence[Mapping[str, Any]], converter: Mapping[str, Any] | None = None
) -> pl.DataFrame:
    """Test every claim.

    Args:
        claims: from `listed.parse` or `listed.load`.
        trials: tables.TRIALS.
        provenance: the cells' provenance.json.
        converter: from `listed.read_converter`.

    Returns:
        One row per claim (CLAIMS), in the order of ``claims``.
    """
    data = Data(trials, provenance, converter)
    return pl.DataFrame([_row(claim, data) for claim in claims], schema=schema(CLAIMS))


def _row(claim: Claim, data: Data) -> dict[str, Any]:
    own = check(claim.test)
    outcome = own.run(own.parameters.model_validate(claim.parameters), claim.threshold.value, data)
    effect = outcome.effect
    return {
        "id": claim.id,
        "statement": claim.statement,
        "original_status": claim.original_status,
        "figure": claim.figure,
        "verdict": outcome.verdict,
        "effect": effect.value if effect else None,
        "effect_low": effect.low if effect else None,
        "effect_high": effect.high if effect else None,
        "unit": own.unit,
        "threshold": claim.threshold.value,
        "threshold_reason": claim.threshold.reason,
        "finding": outcome.finding,
        "rows": list(outcome.rows),
        "n": outcome.n,
    }
