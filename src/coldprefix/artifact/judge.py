"""Claims and counts of an evaluator's run beside those of a reference: PASS or FAIL, with the reason.

Counts (what an engine reused, computed, destroyed) do not depend on the machine: they must be equal. Times do: there a claim passes with
the verdict that was shipped, whatever the milliseconds; how far the ratios are apart is told by `analysis.compare`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from coldprefix.claims.checks import check
from coldprefix.claims.listed import Claim
from coldprefix.claims.page import effect_of

AGREE = (
    "verdict",
    "effect",
    "effect_low",
    "effect_high",
    "unit",
    "threshold",
    "threshold_reason",
    "statement",
    "finding",
    "rows",
    "n",
    "claimed_of",
)


@dataclass(frozen=True)
class Judged:
    """A claim beside the shipped one.

    Attributes:
        passed: None where nothing was asked: the reference does not decide it, or this run does not measure its cells.
        reason: why not; else what was found.
    """

    id: str
    passed: bool | None
    reason: str

    @property
    def line(self) -> str:
        word = {True: "PASS", False: "FAIL", None: "-   "}[self.passed]
        return f"{word} {self.id:<5} {self.reason}"


def as_claimed(shipped: pl.DataFrame, made: pl.DataFrame | None) -> list[Judged]:
    """Claims made again from the same data: all of them must be as they were (claims.table.CLAIMS)."""
    rows = {} if made is None else {row["id"]: row for row in made.iter_rows(named=True)}
    found = []
    for row in shipped.iter_rows(named=True):
        own = rows.pop(row["id"], None)
        if own is None:
            found.append(
                Judged(row["id"], False, "shipped, but not in claims.yaml now" if made is not None else "could not be tested: see above")
            )
            continue
        off = [key for key in AGREE if not _equal(row[key], own[key])]
        reason = f"{off[0]} is {own[off[0]]!r} now, shipped was {row[off[0]]!r}" if off else _told(row)
        found.append(Judged(row["id"], not off, reason))
    return found + [Judged(name, False, "in claims.yaml, but not shipped") for name in rows]


def judge(claims: Iterable[Claim], shipped: pl.DataFrame, made: pl.DataFrame, counts_only: bool) -> list[Judged]:
    """An evaluator's claims beside the shipped ones.

    Args:
        counts_only: judge claims on counts only, as after a run that is too short for times.
    """
    here = {row["id"]: row for row in made.iter_rows(named=True)}
    tests = {claim.id: claim.test for claim in claims}
    found = []
    for row in shipped.iter_rows(named=True):
        own = here.get(row["id"])
        exact = row["id"] in tests and check(tests[row["id"]]).counts
        if own is None:
            found.append(Judged(row["id"], False, "shipped, but not in claims.yaml now"))
        elif own["threshold"] != row["threshold"]:
            found.append(
                Judged(row["id"], False, f"its threshold is {own['threshold']:g} {own['unit']} now, shipped was {row['threshold']:g}")
            )
        elif row["verdict"] == "not decided" and not (exact and row["effect"] is not None):
            found.append(Judged(row["id"], None, f"the reference does not decide it; here: {_told(own)}"))
        elif counts_only and not exact:
            found.append(Judged(row["id"], None, "a claim on times: `make reproduce` judges it"))
        elif own["verdict"] != row["verdict"]:
            found.append(Judged(row["id"], False, f"here {_told(own)}; shipped {_told(row)}. {own['finding']}"))
        elif exact and not _equal(row["effect"], own["effect"]):
            found.append(Judged(row["id"], False, f"a count differs: here {_told(own)}; shipped {_told(row)}"))
        else:
            found.append(Judged(row["id"], True, f"here {_told(own)}; shipped {_told(row)}"))
    return found


def counts_of(requests: pl.DataFrame) -> pl.DataFrame:
    """What was reused and computed: a row for each step of each cell, with the distinct (prompt, cached, computed) tokens of its accepted
    requests, burn-in included, in order.

    Args:
        requests: tables.REQUESTS.
    """
    key = ["phase", "variant", "configuration", "state", "step"]
    counted = pl.struct("prompt_tokens", "cached_tokens", "evaluated_tokens")
    accepted = requests.filter(pl.col("rejection").is_null())
    return accepted.group_by(key).agg(counts=counted.unique().sort()).sort(key)


def differing_counts(shipped: pl.DataFrame, made: pl.DataFrame) -> list[str]:
    """Lines for steps of cells that both have and whose counts differ, and for those that ``made`` lacks."""
    key = ["phase", "variant", "configuration", "state", "step"]
    both = shipped.join(made, on=key, how="left", suffix="_here")
    lines = []
    for row in both.iter_rows(named=True):
        where = "/".join(row[name] for name in key)
        if row["counts_here"] is None:
            lines.append(f"{where} was not measured here")
        elif row["counts_here"] != row["counts"]:
            lines.append(f"{where}: {_tokens(row['counts_here'])} here, {_tokens(row['counts'])} shipped")
    return lines


def _tokens(counts: Iterable[dict[str, Any]]) -> str:
    return " or ".join(f"{c['cached_tokens']} of {c['prompt_tokens']} reused, {c['evaluated_tokens']} computed" for c in counts)


def _told(row: dict[str, Any]) -> str:
    return row["verdict"] if row["effect"] is None else f"{row['verdict']}, {effect_of(row)}"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-9 * max(abs(one), abs(other))
    return bool(one == other)
