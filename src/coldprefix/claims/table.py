"""The table of claims: a row for each, with its verdict and what that was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from coldprefix.claims.checks import check
from coldprefix.claims.data import Data
from coldprefix.claims.listed import Claim
from coldprefix.claims.scope import Scope, is_of, records_of, scope_of
from coldprefix.claims.verdict import Outcome, Verdict
from coldprefix.data.tables import Columns, schema

# column: (type, what it is)
CLAIMS: Columns = {
    "id": (pl.String(), "as in claims.yaml"),
    "statement": (pl.String(), "the claim, as it was made"),
    "original_status": (pl.String(), "where the original study left it"),
    "figure": (pl.String(), "name of the figure that shows what the claim is about; null if none does"),
    "verdict": (
        pl.String(),
        "supported, refuted, contradicted here (the hardware that the claim is about was not measured) or not decided",
    ),
    "claimed_of": (pl.String(), "hardware that the claim is about, as claims.yaml states it; null if it is about any"),
    "hardware": (pl.String(), "what the cells used were measured on: CPU model and threads, or GPU; null if no cell was used"),
    "engines": (pl.String(), "engines of these cells, with version and build; null if none"),
    "weights": (pl.String(), "models of these cells, and whether their weights are random; null if none"),
    "flags": (pl.String(), "settings in force in these cells; null if none"),
    "effect": (pl.Float64(), "what is compared with the threshold; of several parts the one nearest to it; null if not measured"),
    "effect_low": (pl.Float64(), "lower end of its 95 % interval; null below 3 engine processes or 6 trials"),
    "effect_high": (pl.Float64(), "upper end"),
    "unit": (pl.String(), "of effect and threshold; x is a ratio"),
    "threshold": (pl.Float64(), "stated in claims.yaml"),
    "threshold_reason": (pl.String(), "why this threshold"),
    "finding": (pl.String(), "what was found, in words, with what was not measured"),
    "rows": (pl.List(pl.String()), "cells used: phase/variant/configuration/state; or the record used"),
    "n": (pl.Int32(), "trials used, over all these cells"),
    "commit": (pl.String(), "checkout with which the run was measured, + if changed: what claims.yaml said then; null if not known"),
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
    records = records_of(outcome.rows, data.trials, data.provenance)
    scope = outcome.scope or scope_of(records)
    verdict, finding = within_scope(outcome, claim.scope.hardware, records, scope)
    return {
        "id": claim.id,
        "statement": claim.statement,
        "original_status": claim.original_status,
        "figure": claim.figure,
        "verdict": verdict,
        "claimed_of": claim.scope.hardware,
        **scope._asdict(),
        "effect": effect.value if effect else None,
        "effect_low": effect.low if effect else None,
        "effect_high": effect.high if effect else None,
        "unit": own.unit,
        "threshold": claim.threshold.value,
        "threshold_reason": claim.threshold.reason,
        "finding": finding,
        "rows": list(outcome.rows),
        "n": outcome.n,
        "commit": _commit(data.provenance),
    }


def within_scope(outcome: Outcome, hardware: str | None, records: Sequence[Mapping[str, Any]], scope: Scope) -> tuple[Verdict, str]:
    """The verdict and its finding, as far as what was measured may say: a claim about other hardware is not refuted by it.

    Args:
        hardware: that the claim is about; None: any, so that one machine is enough to refute it.
        records: of the cells used; scope: what was found of them, or what the test says itself.
    """
    verdict, finding = outcome.verdict, outcome.finding
    if hardware is None or verdict == "not decided":
        return verdict, finding
    there = is_of(hardware, records) if outcome.scope is None else hardware.casefold() in (scope.hardware or "").casefold()
    if there:
        return verdict, finding
    finding = f"{finding.removesuffix('.')}; the original's hardware ({hardware}) was not measured."
    return ("contradicted here" if verdict == "refuted" else verdict), finding


def _commit(provenance: Sequence[Mapping[str, Any]]) -> str | None:
    """Of all cells; they may have been measured with several."""
    return ", ".join(dict.fromkeys(r["software"]["commit"] for r in provenance if r.get("software", {}).get("commit"))) or None
