"""What the original's own report says: two of its numbers, one over the other (study/original.csv)."""

from __future__ import annotations

import re
from typing import Literal

import polars as pl
from pydantic import Field, model_validator

from coldprefix.claims.checks import Check
from coldprefix.claims.data import Data
from coldprefix.claims.effect import Effect, between
from coldprefix.claims.scope import Scope
from coldprefix.claims.verdict import Outcome, Part, combine, limits, show
from coldprefix.errors import ColdprefixError
from coldprefix.setup.building import ROOT
from coldprefix.strict import Strict
from coldprefix.study.config import EnginePhase

FILE = ROOT / "study" / "original.csv"
HARDWARE = "GTX 1650"
KEYS = ("phase", "configuration", "condition", "metric", "state")
LABEL = "From the original's report, without intervals, not from this run"
GPT2_MATRICES = 12 * 12 * 768**2  # parameters of the matrices that a token is multiplied with: 12 layers of 12 x 768 x 768


class Reported(Strict):
    """A row of study/original.csv; empty where the report does not say."""

    phase: EnginePhase
    configuration: str = ""
    condition: str = ""
    metric: str
    state: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, self.model_dump().values()))


class Parameters(Strict):
    """Two reported numbers of one unit; `tokens`: both are times of so many tokens as the rows with this metric say."""

    over: Reported
    under: Reported
    relation: Literal["at_least", "at_most", "within"]
    tokens: str | None = None
    matrix_parameters: int = Field(default=GPT2_MATRICES, gt=0)

    @model_validator(mode="after")
    def reported(self) -> Parameters:
        """Raises ValueError for a row that is not in the report."""
        rows = {"over": self.over, "under": self.under}
        rows |= {f"{key}, tokens": _tokens(row, self.tokens) for key, row in rows.items() if self.tokens}
        if absent := [f"{key}: study/original.csv has no row {row}" for key, row in rows.items() if value_of(row) is None]:
            raise ValueError("\n".join(absent))
        return self


def original_report(p: Parameters, threshold: float, data: Data) -> Outcome:
    """The number `over`, divided by the number `under`, both as the original reported them. They have no intervals, so the numbers
    themselves decide; with `tokens`, times are told for each token, with the arithmetic that it takes."""
    one, other = value_of(p.over), value_of(p.under)
    assert one is not None and other is not None
    effect = Effect(one / other, None, None)
    agrees = between(Effect(effect.value, effect.value, effect.value), *limits(p.relation, threshold))
    text = f"{p.over} {show(one)} over {p.under} {show(other)}"
    rows = tuple(f"study/original.csv: {row}" for row in (p.over, p.under))
    part = Part("ratio", agrees, effect, text, rows, len(rows))
    extra = [_speed(p, p.tokens)] if p.tokens else []
    scope = Scope(f"{HARDWARE}, as the report says", "versions not reported", "GPT-2 124M or OPT-125m, as reported", None)
    found = combine([part], threshold, LABEL, "x", extra=extra)
    return Outcome(found.verdict, found.effect, found.finding, found.rows, found.n, scope)


def _speed(p: Parameters, tokens: str) -> Part:
    """Milliseconds a token and arithmetic a second, and the question that they raise."""
    times = [value_of(row) or 0.0 for row in (p.under, p.over)]
    lengths = [value_of(_tokens(row, tokens)) or 1.0 for row in (p.under, p.over)]
    per_token = [ms / length for ms, length in zip(times, lengths, strict=True)]
    named = [ms / sum(map(int, re.findall(r"\d+", row.configuration))) for ms, row in zip(times, (p.under, p.over), strict=True)]
    tflops = [2 * p.matrix_parameters / ms / 1e9 for ms in per_token]
    text = (
        f"{per_token[0]:.2f} and {per_token[1]:.2f} ms a token (of {show(lengths[0])}; {named[0]:.2f} and {named[1]:.2f} of as many as the "
    )
    text += f"configuration names) are {tflops[0]:.2f} and {tflops[1]:.2f} TFLOP/s, the speed of a CPU "
    text += (
        f"and a tenth of what a {HARDWARE} can do (some 3 in f32), which raises the question: did llama.cpp run on that GPU at all? Its "
    )
    text += "log says so in 'offloaded n/n layers', which the report does not quote"
    return Part("speed", text=text)


def _tokens(row: Reported, metric: str | None) -> Reported:
    return row.model_copy(update={"metric": metric})


def table() -> pl.DataFrame:
    """The report as data. Raises ColdprefixError if the file is missing or is no such table."""
    try:
        found = pl.read_csv(FILE, schema_overrides=dict.fromkeys(KEYS, pl.String)).with_columns(pl.col(KEYS).fill_null(""))
        return found.select(*KEYS, pl.col("value").cast(pl.Float64), "unit", "source")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ColdprefixError(f"cannot read {FILE}: {error}; restore it with git") from None


def value_of(row: Reported) -> float | None:
    """The value that was reported; None if none was."""
    found = table().filter(*(pl.col(key) == value for key, value in row.model_dump().items()))
    return None if found.is_empty() else float(found["value"][0])


CHECK = Check(parameters=Parameters, unit="x", run=original_report, counts=True)
