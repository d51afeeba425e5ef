"""Claims with verdicts: each claim of claims.yaml is tested from the data, against a threshold stated beforehand.

A claim names a test of TESTS, its parameters and a threshold. A test looks at *parts*, for example one phase each. A part
agrees with the claim or contradicts it only if its whole 95 % interval lies on one side of the threshold; otherwise, and
where a measurement is missing, it leaves the claim open. Intervals are per part, not corrected for the number of parts.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from coldprefix.analysis.statistics import Estimate, Values, degradation_pct, estimate, groups, line, pooled
from coldprefix.data.tables import METRICS, TRIALS, schema
from coldprefix.errors import ColdprefixError
from coldprefix.study.config import PhaseName, State, Strict

# column: (type, what it is)
CLAIMS: dict[str, tuple[pl.DataType, str]] = {
    "id": (pl.String(), "as in claims.yaml"),
    "statement": (pl.String(), "the claim, as it was made"),
    "original_status": (pl.String(), "where the original study left it"),
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

REFUSED = "the engine refused"  # how protocol.py begins the rejection of a request that an engine would not take
STATES: tuple[State, State] = ("hit", "miss")
ENOUGH = 3  # valid trials that an interval needs


# --- what is in the data ------------------------------------------------------------------------------------------------


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
        provenance: the cells' records, as measure.py writes them.
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

    def cells(self, phases: Sequence[PhaseName], variant: str, configurations: Sequence[str], state: State) -> list[CellName]:
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
                cell = CellName.model_validate({k: job[k] for k in ("phase", "variant", "configuration", "state")})
                found.append((str(cell), record["in_force"][key]))
        return found


# --- from parts to a verdict --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What one cell or one pair of cells says.

    Attributes:
        label: by which parts are put together in the finding: a phase.
        agrees: with the claim; None leaves it open.
        text: added to the finding.
        missing: what was not measured; then the part leaves the claim open.
    """

    label: str
    agrees: bool | None = None
    effect: Effect | None = None
    text: str = ""
    cells: tuple[str, ...] = ()
    n: int = 0
    missing: str | None = None


@dataclass(frozen=True)
class Outcome:
    verdict: Literal["supported", "refuted", "not decided"]
    effect: Effect | None
    finding: str
    rows: tuple[str, ...]
    n: int


def between(effect: Effect, lowest: float, highest: float) -> bool | None:
    """Does the whole interval lie in [lowest, highest] (True), or outside (False)? None: it straddles an end, or is unknown."""
    if effect.low is None or effect.high is None:
        return None
    if lowest <= effect.low and effect.high <= highest:
        return True
    return False if effect.high < lowest or effect.low > highest else None


Relation = Literal["at_least", "at_most", "within", "equals"]


def limits(relation: Relation, threshold: float) -> tuple[float, float]:
    """Where an effect must lie; `within` is of ratios: between 1/threshold and threshold."""
    return {
        "at_least": (threshold, math.inf),
        "at_most": (-math.inf, threshold),
        "within": (1 / threshold if threshold else 0.0, threshold),
        "equals": (threshold, threshold),
    }[relation]


def missing_part(label: str, samples: Iterable[Sample]) -> Part | None:
    """The part that says which of these samples are missing; None if all are there."""
    missing = [s.missing for s in samples if s.missing]
    return Part(label, missing="; ".join(missing)) if missing else None


def ratio_of(over: Sample, under: Sample) -> Effect | None:
    """Median over median with its interval; None where a value under the line is not positive."""
    if (under.values <= 0).any():
        return None
    found = degradation_pct(under.groups, over.groups)
    return effect_of(found).map(lambda pct: 1 + pct / 100)


def median_of(values: pl.Series) -> float | None:
    """Median of what is known; None if nothing is."""
    known = values.drop_nulls().cast(pl.Float64).to_numpy()
    return float(np.median(known)) if len(known) else None


def effect_of(found: Estimate) -> Effect:
    assert found.median is not None
    return Effect(found.median, found.ci_low, found.ci_high)


def verdict_of(agrees: Sequence[bool | None], every: bool) -> Literal["supported", "refuted", "not decided"]:
    """Of a claim about every part, one part that contradicts is enough to refute it; of one about any part, one that agrees
    is enough to support it."""
    if agrees and (all(a is True for a in agrees) if every else any(a is True for a in agrees)):
        return "supported"
    if agrees and (any(a is False for a in agrees) if every else all(a is False for a in agrees)):
        return "refuted"
    return "not decided"


def combine(parts: Sequence[Part], threshold: float, lead: str, unit: str, every: bool = True, extra: Sequence[Part] = ()) -> Outcome:
    """The verdict of several parts. The effect is the deciding one nearest to the threshold: the weakest evidence, not the best.

    Args:
        lead: begins the finding; the ranges of the effects by label follow.
        extra: what is told, and whose rows are named, but decides nothing.
    """
    verdict = verdict_of([part.agrees for part in parts], every)
    wanted = {"supported": True, "refuted": False, "not decided": None}[verdict]
    deciding = [p.effect for p in parts if p.effect and p.agrees is wanted] or [p.effect for p in parts if p.effect]
    effect = min(deciding, key=lambda e: abs(e.value - threshold)) if deciding else None
    told = []
    for label in dict.fromkeys(part.label for part in parts if part.effect):
        own = [part for part in parts if part.label == label and part.effect]
        texts = dict.fromkeys(part.text for part in own if part.text)
        told.append(f"{label} {_range([p.effect.value for p in own if p.effect], unit)}" + (f" ({'; '.join(texts)})" if texts else ""))
    missing = list(dict.fromkeys(part.missing for part in parts if part.missing))
    sentences = [f"{lead}: {', '.join(told)}"] if told else []
    sentences += [part.text for part in extra if part.text]
    finding = "; ".join(sentences)
    if missing:
        finding += ("; missing: " if finding else "Missing: ") + "; ".join(missing)
    used = [*parts, *extra]
    return Outcome(verdict, effect, finding + ".", tuple(dict.fromkeys(c for p in used for c in p.cells)), sum(p.n for p in used))


def show(value: float, unit: str = "") -> str:
    """A number for people: three digits, more for R2, whole above 100."""
    text = f"{value:.4f}" if unit == "R2" else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text if unit in ("", "R2") else f"{text} {unit}"


def _range(values: Sequence[float], unit: str) -> str:
    low, high = show(min(values)), show(max(values))
    if unit == "R2":
        low, high = show(min(values), unit), show(max(values), unit)
    return (low if low == high else f"{low} to {high}") + ("" if unit == "R2" else f" {unit}")


def show_effect(effect: Effect | None, unit: str) -> str:
    """E.g. "1.02 [0.98, 1.05] x"."""
    if effect is None:
        return "-"
    inside = "R2" if unit == "R2" else ""
    interval = "" if effect.low is None or effect.high is None else f" [{show(effect.low, inside)}, {show(effect.high, inside)}]"
    return f"{show(effect.value, inside)}{interval} {unit}"


# --- the tests ------------------------------------------------------------------------------------------------------------


def _metric(name: str) -> str:
    allowed = [m for m in METRICS if m in TRIALS] + [c for c in TRIALS if c.endswith("_tokens")]
    if name not in allowed:
        raise ValueError(f"{name!r} is no metric of a trial{_suggest(name, allowed)}; the metrics are {', '.join(allowed)}")
    return name


Metric = Annotated[str, AfterValidator(_metric)]
Phases = Annotated[tuple[PhaseName, ...], Field(min_length=1)]


class RatioParameters(Strict):
    """Median of a metric in one cell over that in another."""

    metric: Metric = "ttft_ms"
    over: CellName
    under: CellName
    relation: Literal["at_least", "at_most", "within"]


def ratio(p: RatioParameters, threshold: float, data: Data) -> Outcome:
    """Median of `metric` in the cell `over`, divided by that in the cell `under`."""
    over, under = data.sample(p.over, p.metric), data.sample(p.under, p.metric)
    lead = f"{p.metric} of {p.over} over that of {p.under}"
    return combine([_ratio_part("ratio", over, under, limits(p.relation, threshold))], threshold, lead, "x")


def _ratio_part(label: str, over: Sample, under: Sample, inside: tuple[float, float], text: str = "") -> Part:
    if part := missing_part(label, [over, under]):
        return part
    effect = ratio_of(over, under)
    if effect is None:
        return Part(label, missing=f"{under.cell} holds values that are not positive, so there is no ratio")
    text = text or f"medians {show(over.median)} and {show(under.median)}"
    n = len(over.values) + len(under.values)
    return Part(label, between(effect, *inside), effect, text, (over.cell, under.cell), n)


class MissOverHitParameters(Strict):
    """A metric after misses over that after hits, per phase and configuration."""

    metric: Metric = "ttft_ms"
    phases: Phases
    variant: str = "main"
    configurations: tuple[str, ...] = ()
    relation: Literal["at_least", "at_most", "within"] = "at_least"


def miss_over_hit(p: MissOverHitParameters, threshold: float, data: Data) -> Outcome:
    """Median of `metric` in miss trials over that in hit trials, in every phase and configuration."""
    parts = []
    for miss in data.cells(p.phases, p.variant, p.configurations, "miss"):
        hit = miss.model_copy(update={"state": "hit"})
        part = _ratio_part(miss.phase, data.sample(miss, p.metric), data.sample(hit, p.metric), limits(p.relation, threshold))
        parts.append(part)
    extra = []
    if p.metric == "rewarm_ms":
        for phase in p.phases:
            shares = []
            for state in STATES:
                own = pl.concat([data.counted(c).filter("valid") for c in data.cells([phase], p.variant, p.configurations, state)])
                shares.append(median_of(100 * own["rewarm_cached_tokens"] / own["warmup_prompt_tokens"]))
            after_hit, after_miss = shares
            if after_hit is not None and after_miss is not None:
                text = (
                    f"on {phase} the re-warm reused {show(after_hit, '%')} of [A, B] after a hit and {show(after_miss, '%')} after a miss"
                )
                extra.append(Part(phase, text=text))
    lead = f"Median {p.metric} after a miss over that after a hit ({p.variant})"
    return combine([Part(**{**vars(q), "text": ""}) for q in parts], threshold, lead, "x", extra=extra)


class ReuseParameters(Strict):
    """Tokens that the engine reports as reused in a step of the trial."""

    phases: Phases
    variant: str = "main"
    configurations: tuple[str, ...] = ()
    state: State
    step: Literal["warmup", "query", "rewarm", "stream"]
    relation: Literal["at_least", "at_most", "equals"]


def reuse(p: ReuseParameters, threshold: float, data: Data) -> Outcome:
    """Median of the tokens that the engine says it reused in one step. Rejected trials count: validity is defined by this reuse."""
    parts = []
    for cell in data.cells(p.phases, p.variant, p.configurations, p.state):
        found = data.sample(cell, f"{p.step}_cached_tokens", unverified=True)
        if part := missing_part(cell.phase, [found]):
            parts.append(part)
            continue
        effect = effect_of(estimate(found.groups))
        agrees = between(effect, *limits(p.relation, threshold))
        parts.append(Part(cell.phase, agrees, effect, "", (found.cell,), len(found.values)))
    lead = f"Tokens that the {p.step} of a {p.state} reused, rejected trials included ({p.variant})"
    return combine(parts, threshold, lead, "tokens")


class LinearParameters(Strict):
    """A straight line through the TTFT of all trials, per phase."""

    phases: Phases
    variant: str = "scaling"
    state: State = "miss"
    largest_residual_pct: float = Field(default=10, gt=0)
    from_tokens: int = Field(default=100, ge=0)


def linear_in_computed_tokens(p: LinearParameters, threshold: float, data: Data) -> Outcome:
    """R2 of TTFT against computed tokens, and no length's median further from the line than `largest_residual_pct`, in every phase."""
    parts = []
    for phase in p.phases:
        cells = data.cells([phase], p.variant, [], p.state)
        used = pl.concat([data.counted(c) for c in cells]).filter("valid").drop_nulls(["ttft_ms", "stream_evaluated_tokens"])
        tokens = used["stream_evaluated_tokens"].cast(pl.Float64).to_numpy()
        if len(np.unique(tokens)) < 3 or np.ptp(used["ttft_ms"].to_numpy()) == 0:
            here = f"{phase}/{p.variant}/*/{p.state}"
            lengths = f"valid trials of {len(np.unique(tokens))} lengths" if len(tokens) else "no valid trial"
            parts.append(Part(phase, missing=f"{here} has {lengths}; a line needs 3 lengths and times that differ"))
            continue
        ms = used["ttft_ms"].to_numpy()
        fit = line(tokens, ms)
        assert fit is not None
        residuals: dict[float, tuple[float, bool]] = {}  # tokens: deviation of the median in % of the line, its interval all beyond
        for length in np.unique(tokens):
            expected, found = float(fit.at(length)), estimate(ms[tokens == length])
            ends = [100 * (v / expected - 1) for v in (found.median, found.ci_low, found.ci_high) if v is not None]
            beyond = len(ends) == 3 and between(Effect(*ends), -p.largest_residual_pct, p.largest_residual_pct) is False
            residuals[float(length)] = (ends[0], beyond) if expected > 0 else (math.inf, True)
        judged = {length: r for length, r in residuals.items() if length >= p.from_tokens}
        effect = Effect(*fit.r2)
        agrees, bent = between(effect, threshold, math.inf), ""
        if any(beyond for _, beyond in judged.values()):
            agrees = False
            bent = ", so the line bends although R2 passes" if effect.low is not None and effect.low >= threshold else ""
        elif any(abs(deviation) > p.largest_residual_pct for deviation, _ in judged.values()) or not judged:
            agrees = None if agrees else agrees
        text = f"{show(fit.slope[0])} ms a token from {show(fit.intercept[0])} ms at none"
        if judged:
            worst = max(judged, key=lambda length: abs(judged[length][0]))
            text += f", largest deviation of a median {judged[worst][0]:+.0f} % at {worst:.0f} tokens"
        broken = [f"{length:.0f}" for length, (deviation, _) in judged.items() if abs(deviation) > p.largest_residual_pct]
        short = {length: r for length, r in residuals.items() if length < p.from_tokens}
        text += f", beyond {show(p.largest_residual_pct)} % at {', '.join(broken)} tokens{bent}" if broken else ""
        text += "".join(f", not judged: {deviation:+.0f} % at {length:.0f} tokens" for length, (deviation, _) in short.items())
        names = used["configuration"].unique(maintain_order=True)
        parts.append(Part(phase, agrees, effect, text, tuple(f"{phase}/{p.variant}/{c}/{p.state}" for c in names), len(used)))
    return combine(parts, threshold, "R2 of a line through TTFT against the tokens computed", "R2")


class ConverterParameters(Strict):
    """What llama.cpp's converter says to an architecture."""

    architecture: str
    models: tuple[str, ...] = ()
    phases: Phases = ("phase3a", "phase3b")


def converter_accepts(p: ConverterParameters, threshold: float, data: Data) -> Outcome:
    """The converter's exit code; accepting is not running, so support needs verified trials of one of `models`, too."""
    record = data.converter
    ran = data.trials.filter("valid", pl.col("phase").is_in(p.phases), pl.col("model").is_in(p.models))
    if record is None:
        return Outcome("not decided", None, "Missing: the converter was not run (no record of it).", (), 0)
    code, message = float(record["returncode"]), " ".join(str(record["message"]).split())
    said = f'llama.cpp\'s converter, given {record["architecture"]}, ended with exit code {code:.0f}: "{message}"'
    effect, source = Effect(code, code, code), ("the converter's record",)
    if record["architecture"] != p.architecture:
        return Outcome("not decided", effect, f"{said}; missing: its answer to {p.architecture}.", source, 1)
    if code == threshold:
        if ran.is_empty():
            return Outcome("not decided", effect, f"{said}; missing: a verified trial of {' or '.join(p.models)} on llama.cpp.", source, 1)
        cells = ran.select(pl.format("{}/{}/{}/{}", "phase", "variant", "configuration", "state").unique(maintain_order=True)).to_series()
        return Outcome("supported", effect, f"{said}; {len(ran)} verified trials ran.", (*source, *cells), 1 + len(ran))
    if p.architecture in message and "not supported" in message:
        return Outcome("refuted", effect, f"{said}.", source, 1)
    return Outcome("not decided", effect, f"{said}, which is no refusal of the architecture; repair the converter's run.", source, 1)


class OverheadParameters(Strict):
    """What transport and harness add to a miss, against what the miss costs."""

    phase: PhaseName = "phase3a"
    variant: str = "main"
    configurations: tuple[str, ...] = ()
    hides_from_pct: float = Field(default=100, gt=0)


def overhead_hides_cost(p: OverheadParameters, threshold: float, data: Data) -> Outcome:
    """client_ms of a miss in % of what the miss costs (miss minus hit TTFT): below the threshold it hides nothing, from
    `hides_from_pct` on it can. The interval is that of the extremes of both, so rather too wide."""
    parts = []
    for miss in data.cells([p.phase], p.variant, p.configurations, "miss"):
        samples = [data.sample(miss, "client_ms"), data.sample(miss, "ttft_ms")]
        samples.append(data.sample(miss.model_copy(update={"state": "hit"}), "ttft_ms"))
        if part := missing_part(miss.configuration, samples):
            parts.append(part)
            continue
        client, after_miss, after_hit = (effect_of(estimate(s.groups)) for s in samples)
        ends = (client.low, client.high, after_miss.low, after_miss.high, after_hit.low, after_hit.high)
        client_low, client_high, miss_low, miss_high, hit_low, hit_high = (v for v in ends if v is not None)
        least, most, cost = miss_low - hit_high, miss_high - hit_low, after_miss.value - after_hit.value
        cells, n = (str(miss), samples[2].cell), len(samples[1].values) + len(samples[2].values)
        if least <= 0:
            why = f"in {miss.configuration} a miss costs {show(cost)} ms, not distinguishable from 0, so there is nothing to hide"
            parts.append(Part(miss.configuration, cells=cells, n=n, missing=why))
            continue
        quotients = [100 * a / b for a in (client_low, client_high) for b in (least, most)]
        effect = Effect(100 * client.value / cost, min(quotients), max(quotients))
        hidden = between(effect, p.hides_from_pct, math.inf)
        agrees = False if max(quotients) < threshold else True if hidden else None
        text = f"{show(client.value)} ms beside a cost of {show(cost)} ms"
        parts.append(Part(miss.configuration, agrees, effect, text, cells, n))
    return combine(parts, threshold, f"Transport and harness on {p.phase}, in % of what a miss costs there", "%")


class GapParameters(Strict):
    """A condition that would have to make misses as much slower as one phase was than another."""

    phases: Phases
    configuration: str
    slow: str
    fast: str
    show_in_force: str | None = None


def explains_gap(p: GapParameters, threshold: float, data: Data) -> Outcome:
    """Miss TTFT in the variant `slow` over that in `fast`: does any phase reach the gap that is to be explained?"""
    parts = []
    for phase in p.phases:
        slow, fast = (CellName(phase=phase, variant=v, configuration=p.configuration, state="miss") for v in (p.slow, p.fast))
        over, under = data.sample(slow, "ttft_ms"), data.sample(fast, "ttft_ms")
        texts = []
        if not over.missing and not under.missing:
            texts.append(f"{show(over.median)} and {show(under.median)} ms")
            for column, word in (("stream_evaluated_tokens", "computed"), ("stream_cached_tokens", "reused")):
                counts = [data.sample(cell, column) for cell in (slow, fast)]
                if all(len(c.values) for c in counts):
                    texts.append(f"{' and '.join(show(c.median) for c in counts)} tokens {word}")
            hits = [data.sample(cell.model_copy(update={"state": "hit"}), "ttft_ms") for cell in (slow, fast)]
            if not any(hit.missing for hit in hits):
                texts.append(f"hits {show_effect(ratio_of(*hits), 'x')}")
            if p.show_in_force:
                values = [data.in_force(phase, [v], p.show_in_force) for v in (p.slow, p.fast)]
                if all(values):
                    texts.append(f"{p.show_in_force} in force {values[0][0][1]} and {values[1][0][1]}")
        parts.append(_ratio_part(phase, over, under, limits("at_least", threshold), ", ".join(texts)))
    lead = f"Miss TTFT with {p.slow} over that with {p.fast}, where {show(threshold)} x is to be explained"
    return combine(parts, threshold, lead, "x", every=False)


class BinariesParameters(Strict):
    """The HTTP and the Python phase of one engine, with the same libraries or not."""

    http: PhaseName = "phase3a"
    python: PhaseName = "phase3b"
    variant: str = "main"
    repeated: str = "confound/repeated"
    repeated_configuration: str = "A512_B256"
    margin_pct: float = Field(default=10, gt=0)


def binaries_explain_gap(p: BinariesParameters, threshold: float, data: Data) -> Outcome:
    """Do differently compiled libraries make the gap between the Python and the HTTP phase?

    Refuted if the gap is there with identical libraries, or is absent with different ones; supported if it is there with
    different ones and verified misses. Identical libraries without a gap leave it open: both explanations predict that.
    """
    libraries = {phase: data.in_force(phase, (p.variant, p.repeated), "libraries") for phase in (p.http, p.python)}
    if absent := [phase for phase, found in libraries.items() if not found]:
        return Outcome("not decided", None, f"Missing: the libraries of {' and '.join(absent)} (provenance).", (), 0)
    found = {json.dumps(value, sort_keys=True) for records in libraries.values() for _, value in records}
    same = len(found) == 1
    residuals = []  # of verified misses, Python over HTTP
    for http in data.cells([p.http], p.variant, [], "miss"):
        python = http.model_copy(update={"phase": p.python})
        residuals.append(
            _ratio_part("residual", data.sample(python, "ttft_ms"), data.sample(http, "ttft_ms"), limits("at_least", threshold))
        )
    again = {phase: _repeated(phase, p.repeated, p.repeated_configuration) for phase in (p.http, p.python)}
    samples = {phase: data.sample(cell, "query_ms", unverified=True, from_trial=1) for phase, cell in again.items()}
    gap = _ratio_part("gap with repeated prompts", samples[p.python], samples[p.http], limits("at_least", threshold))
    extra = [Part("libraries", text=f"{p.http} and {p.python} mapped {'identical' if same else 'different'} libraries (sha256)")]
    told = tuple(cell for part in residuals for cell in part.cells)
    extra.append(Part("residual", text=_residual_text(p, data, residuals), cells=told, n=sum(part.n for part in residuals)))
    if not same:
        extra[-1] = Part("residual", text=extra[-1].text)  # its rows are those of the parts
        return combine(residuals, threshold, f"Miss TTFT with fresh prompts, {p.python} over {p.http}", "x", every=False, extra=extra)
    extra.append(_repeated_note(data, p.http, p.repeated, p.repeated_configuration))
    # With identical libraries, a gap of either kind is one that they cannot have made.
    against = [Part(**{**vars(part), "agrees": False}) for part in (gap, *residuals) if part.agrees]
    open_gap = Part(**{**vars(gap), "agrees": None})
    return combine(against or [open_gap], threshold, f"{p.python} over {p.http}", "x", extra=extra)


def _residual_text(p: BinariesParameters, data: Data, residuals: Sequence[Part]) -> str:
    """What differs between verified misses of the two phases, and how much of it is transport and how much the engine's own time."""
    known = [part for part in residuals if part.effect]
    if not known:
        return "; ".join(part.missing for part in residuals if part.missing)
    worst = max(known, key=lambda part: abs(math.log(part.effect.value)) if part.effect else 0)
    margin = 1 + p.margin_pct / 100
    inside = [between(part.effect, 1 / margin, margin) for part in known if part.effect]
    size = "within" if all(inside) else "beyond" if False in inside else "not certainly within"
    text = f"with fresh prompts {p.python} takes {show_effect(worst.effect, 'x')} of {p.http}'s miss TTFT ({worst.cells[0].split('/')[2]}, the "
    text += f"most different of {len(known)}), {size} the margin of {show(p.margin_pct)} %"
    cells = [
        CellName.model_validate(dict(zip(("phase", "variant", "configuration", "state"), c.split("/"), strict=True))) for c in worst.cells
    ]
    engine = [data.sample(cell, "engine_prompt_ms") for cell in cells]
    client = [data.sample(cell, "client_ms") for cell in cells]
    if not any(s.missing for s in (*engine, *client)):
        text += f", of which the engine's own prompt time {show_effect(ratio_of(*engine), 'x')}, and transport and harness "
        text += f"{show(client[0].median)} ms ({p.python}) and {show(client[1].median)} ms ({p.http})"
    return text


def _repeated(phase: PhaseName, variant: str, configuration: str) -> CellName:
    return CellName(phase=phase, variant=variant, configuration=configuration, state="miss")


def _repeated_note(data: Data, phase: PhaseName, variant: str, configuration: str) -> Part:
    """What repeated prompts do: the "misses" after the first, most of them rejected as misses. Empty if not measured."""
    cell = _repeated(phase, variant, configuration)
    used = data.counted(cell).filter(pl.col("trial") > 0).drop_nulls(["query_ms", "query_cached_tokens"])
    if used.is_empty():
        return Part(phase)
    reused, length, ms = (median_of(used[c]) or 0.0 for c in ("query_cached_tokens", "query_prompt_tokens", "query_ms"))
    rejected = used["query_rejection"].is_not_null().sum()
    text = f"with repeated prompts a 'miss' of {phase} reuses {reused:.0f} of {length:.0f} tokens and takes {show(ms)} ms"
    return Part(phase, text=f"{text} ({len(used)} trials, {rejected} of them rejected as misses)", cells=(str(cell),), n=len(used))


class AbsorbsParameters(Strict):
    """TTFT of a miss against that of a hit."""

    phases: Phases
    variant: str = "main"
    configurations: tuple[str, ...] = ()
    repeated: str = "confound/repeated"
    repeated_configuration: str = "A512_B256"


def absorbs_invalidation(p: AbsorbsParameters, threshold: float, data: Data) -> Outcome:
    """TTFT degradation of verified misses within plus or minus the threshold, in every phase and configuration."""
    parts = []
    for miss in data.cells(p.phases, p.variant, p.configurations, "miss"):
        samples = data.sample(miss.model_copy(update={"state": "hit"}), "ttft_ms"), data.sample(miss, "ttft_ms")
        if part := missing_part(miss.phase, samples):
            parts.append(part)
            continue
        effect = effect_of(degradation_pct(samples[0].groups, samples[1].groups))
        n = len(samples[0].values) + len(samples[1].values)
        parts.append(Part(miss.phase, between(effect, -threshold, threshold), effect, "", (samples[0].cell, samples[1].cell), n))
    extra = [_repeated_note(data, phase, p.repeated, p.repeated_configuration) for phase in p.phases]
    return combine(parts, threshold, f"TTFT of a verified miss over a hit, minus 1 ({p.variant})", "%", extra=extra)


class PartialReuseParameters(Strict):
    """Hits extend the warm prompt: what they reuse of it is partial reuse."""

    phases: Phases
    variant: str = "main"
    configurations: tuple[str, ...] = ()


def no_partial_reuse(p: PartialReuseParameters, threshold: float, data: Data) -> Outcome:
    """Share of [A, B] that the different, longer prompt [A, B, Q] reuses: at most the threshold, everywhere.

    Rejected trials count: a trial is valid as a hit because of this very reuse, so valid ones alone could not support the claim.
    """
    parts = []
    for hit in data.cells(p.phases, p.variant, p.configurations, "hit"):
        column, warm = "stream_cached_tokens", "warmup_prompt_tokens"
        used = data.counted(hit).drop_nulls([column, warm]).filter(pl.col("query_prompt_tokens") > pl.col(warm))
        if len(used) < ENOUGH:
            missing = data.sample(hit, column, unverified=True).missing
            parts.append(Part(hit.phase, missing=missing or f"{hit} has {len(used)} hits that are longer than the warm prompt"))
            continue
        effect = effect_of(estimate((100 * used[column] / used[warm]).to_numpy()))
        agrees = between(effect, -math.inf, threshold)
        after, length, reused, whole = (median_of(used[c]) for c in ("rewarm_cached_tokens", warm, column, "query_prompt_tokens"))
        text = f"{hit.configuration}: {reused:.0f} of {whole:.0f} tokens"
        if after is not None:
            text += f", and {after:.0f} of {length:.0f} by the re-warm, when the slot held a longer prompt"
        rejected = used["rejection"].is_not_null().sum()
        text += f", {rejected} of {len(used)} trials rejected" if rejected else ""
        parts.append(Part(hit.phase, agrees, effect, text, (str(hit),), len(used)))
    lead = "A hit is not the prompt that the cache holds, and reuses this share of [A, B], which it begins with"
    extra = [Part("prefix", text="true is that only a prefix is reused, from position 0")] if any(q.agrees is False for q in parts) else []
    return combine(parts, threshold, lead, "%", extra=extra)


class KvBytesParameters(Strict):
    """KV memory, as the engine reports it."""

    phases: Phases
    models: tuple[str, ...] = Field(min_length=1)
    bytes_per_token: int = Field(gt=0)
    cells: int = Field(default=2048, gt=0)


def kv_bytes_per_token(p: KvBytesParameters, threshold: float, data: Data) -> Outcome:
    """Bytes of KV per token that the engines report, less `bytes_per_token`: no further from 0 than the threshold, in every cell."""
    parts = []
    for phase in p.phases:
        records = [r for r in data.provenance if r["job"]["phase"] == phase]
        models = {str(r["job"]["model"]["name"]) for r in records}
        values = data.in_force(phase, (), "kv_bytes_per_token")
        if not models & set(p.models) or not values:
            ran = f"ran {', '.join(sorted(models))}" if models else "was not measured"
            parts.append(Part(phase, missing=f"{phase} {ran}; the claim is about {' and '.join(p.models)}, as an engine reports it"))
            continue
        bytes_found = [float(value) for _, value in values]
        middle = float(np.median(bytes_found))
        difference = Effect(middle, min(bytes_found), max(bytes_found)).map(lambda found: found - p.bytes_per_token)
        total = middle * p.cells / 2**20
        text = f"{show(middle)} bytes reported in {len(values)} cells, {show(total)} MiB for {p.cells} tokens"
        positions = min(int(r["job"]["model"]["positions"]) for r in records)
        text += f", of which this model can use {positions}" if positions < p.cells else ""
        agrees = between(difference, -threshold, threshold)
        parts.append(Part(phase, agrees, difference, text, tuple(cell for cell, _ in values), len(values)))
    return combine(parts, threshold, f"Bytes of KV per token, less {p.bytes_per_token:,}", "bytes")


class SlotsParameters(Strict):
    """Slots that share a context, against a control with room for each."""

    phase: PhaseName = "phase3a"
    configuration: str = "A256_B512"
    shared: str = "slots/unified_1024"
    control: str = "slots/split_1024"
    refused: str = "slots/split_256"


def slots_evict_prefix(p: SlotsParameters, threshold: float, data: Data) -> Outcome:
    """Share of what the re-warm reuses in the control that it no longer reuses where slots share the context: at least the threshold."""
    shared, control, refused = (
        CellName(phase=p.phase, variant=v, configuration=p.configuration, state="miss") for v in (p.shared, p.control, p.refused)
    )
    reused = [data.sample(cell, "rewarm_cached_tokens") for cell in (shared, control)]
    extra = [_refusals(data, cell) for cell in (refused, shared, control)]
    lead = "Share of the warm prefix that is lost where slots share the context"
    part = missing_part(p.phase, reused)
    if part is None:
        length = median_of(data.counted(control).filter("valid")["warmup_prompt_tokens"])
        counts = f"the re-warm reuses {show(reused[0].median)} tokens, {show(reused[1].median)} in the control with room for all"
        cells, n = (reused[0].cell, reused[1].cell), len(reused[0].values) + len(reused[1].values)
        loss = ratio_of(*reused)
        if loss is None or (length is not None and reused[1].median < length / 2):
            part = Part(p.phase, cells=cells, n=n, missing=f"a control that keeps the prefix: {counts}")
        else:
            times = [data.sample(cell, "rewarm_ms") for cell in (shared, control)]
            if not any(t.missing for t in times):
                counts += (
                    f" and takes {show_effect(ratio_of(*times), 'x')} as long ({show(times[0].median)} and {show(times[1].median)} ms)"
                )
            effect = loss.map(lambda kept: 100 * (1 - kept))
            part = Part(p.phase, between(effect, *limits("at_least", threshold)), effect, counts, cells, n)
    return combine([part], threshold, lead, "%", extra=extra)


def _refusals(data: Data, cell: CellName) -> Part:
    """How often the engine would not take the prompt at all; empty if never."""
    counted = data.counted(cell)
    refusals = int(counted["rejection"].str.starts_with(REFUSED).sum())
    if not refusals:
        return Part("refused")
    text = f"with {cell.variant} the engine refused the prompt in {refusals} of {len(counted)} trials"
    return Part("refused", text=text, cells=(str(cell),), n=len(counted))


@dataclass(frozen=True)
class ClaimTest:
    """A test that claims.yaml can name: its parameters, the unit of effect and threshold, and what it does."""

    parameters: type[Strict]
    unit: str
    run: Callable[[Any, float, Data], Outcome]


TESTS: dict[str, ClaimTest] = {
    "ratio": ClaimTest(RatioParameters, "x", ratio),
    "miss_over_hit": ClaimTest(MissOverHitParameters, "x", miss_over_hit),
    "reuse": ClaimTest(ReuseParameters, "tokens", reuse),
    "linear_in_computed_tokens": ClaimTest(LinearParameters, "R2", linear_in_computed_tokens),
    "explains_gap": ClaimTest(GapParameters, "x", explains_gap),
    "converter_accepts": ClaimTest(ConverterParameters, "exit code", converter_accepts),
    "overhead_hides_cost": ClaimTest(OverheadParameters, "%", overhead_hides_cost),
    "binaries_explain_gap": ClaimTest(BinariesParameters, "x", binaries_explain_gap),
    "absorbs_invalidation": ClaimTest(AbsorbsParameters, "%", absorbs_invalidation),
    "no_partial_reuse": ClaimTest(PartialReuseParameters, "%", no_partial_reuse),
    "kv_bytes_per_token": ClaimTest(KvBytesParameters, "bytes", kv_bytes_per_token),
    "slots_evict_prefix": ClaimTest(SlotsParameters, "%", slots_evict_prefix),
}


# --- claims.yaml ----------------------------------------------------------------------------------------------------------


class Threshold(Strict):
    value: float
    unit: str
    reason: str = Field(min_length=10)


class Claim(Strict):
    """One entry of claims.yaml."""

    id: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", max_length=32)
    statement: str = Field(min_length=1)
    original_status: str = "not among its claims"
    test: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    threshold: Threshold


def parse(values: Any) -> list[Claim]:
    """Check what claims.yaml holds.

    Raises:
        ColdprefixError: lists every mistake with its path and a correction.
    """
    if not isinstance(values, dict) or set(values) != {"claims"} or not isinstance(values["claims"], list) or not values["claims"]:
        raise ColdprefixError("claims.yaml must hold one key, `claims`, with a list of claims; see docs/claims.md")
    claims: list[Claim] = []
    lines: list[str] = []
    for i, entry in enumerate(values["claims"]):
        name = f"claims.{i}" + (f" ({entry['id']})" if isinstance(entry, dict) and "id" in entry else "")
        try:
            claim = Claim.model_validate(entry)
        except ValidationError as error:
            lines += _explain(error, Claim, name)
            continue
        if claim.id in {other.id for other in claims}:
            lines.append(f"{name}.id: {claim.id!r} is taken by an earlier claim; choose another")
        claims.append(claim)
        test = TESTS.get(claim.test)
        if test is None:
            lines.append(f"{name}.test: there is no test {claim.test!r}{_suggest(claim.test, TESTS)}; the tests are {', '.join(TESTS)}")
            continue
        if claim.threshold.unit != test.unit:
            lines.append(f"{name}.threshold.unit: the test {claim.test} compares in {test.unit!r}, not {claim.threshold.unit!r}")
        try:
            parameters = test.parameters.model_validate(claim.parameters)
        except ValidationError as error:
            lines += _explain(error, test.parameters, f"{name}.parameters")
            continue
        if getattr(parameters, "relation", None) == "within" and claim.threshold.value < 1:
            lines.append(f"{name}.threshold.value: `within` is between 1/value and value; write 1.1 for 10 %, not {claim.threshold.value}")
    if lines:
        raise ColdprefixError("claims.yaml cannot be used:\n" + "\n".join(f"  {line}" for line in lines))
    return claims


def load(path: Path) -> list[Claim]:
    """Read and check a file of claims."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ColdprefixError(f"cannot read {path}: {error}") from None
    return parse(values)


def read_converter(path: Path | None) -> dict[str, Any] | None:
    """The record of the converter's run; None if there is none. Raises ColdprefixError for a file that is not one."""
    if path is None or not path.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"architecture": str(record["architecture"]), "returncode": int(record["returncode"]), "message": str(record["message"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ColdprefixError(f"{path} is no record of the converter's run ({error!r}); delete it and run snakemake again") from None


def _suggest(word: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _explain(error: ValidationError, model: type[BaseModel], path: str) -> list[str]:
    """One line per mistake: the key's path, what is wrong, what to write instead."""
    lines = []
    for item in error.errors(include_url=False):
        location = [str(part) for part in item["loc"]]
        if item["type"] == "extra_forbidden":
            section: Any = model
            for part in location[:-1]:
                section = section.model_fields[part].annotation
            keys = list(section.model_fields)
            text = f"there is no such key{_suggest(location[-1], keys)}; the keys here are {', '.join(keys)}"
        elif item["type"] == "missing":
            text = "this key is missing"
        else:
            message = item["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
            text = message if item["type"] == "value_error" else f"{item['input']!r} {message[0].lower()}{message[1:]}"
        lines.append(f"{'.'.join([path, *location])}: {text}")
    return lines


# --- all of them ------------------------------------------------------------------------------------------------------------


def check_all(
    claims: Sequence[Claim], trials: pl.DataFrame, provenance: Sequence[Mapping[str, Any]], converter: Mapping[str, Any] | None = None
) -> pl.DataFrame:
    """Test every claim.

    Args:
        claims: from `parse` or `load`.
        trials: tables.TRIALS.
        provenance: the cells' provenance.json.
        converter: from `read_converter`.

    Returns:
        One row per claim (CLAIMS), in the order of ``claims``.
    """
    data = Data(trials, provenance, converter)
    rows = []
    for claim in claims:
        test = TESTS[claim.test]
        outcome = test.run(test.parameters.model_validate(claim.parameters), claim.threshold.value, data)
        effect = outcome.effect
        rows.append(
            {
                "id": claim.id,
                "statement": claim.statement,
                "original_status": claim.original_status,
                "verdict": outcome.verdict,
                "effect": effect.value if effect else None,
                "effect_low": effect.low if effect else None,
                "effect_high": effect.high if effect else None,
                "unit": test.unit,
                "threshold": claim.threshold.value,
                "threshold_reason": claim.threshold.reason,
                "finding": outcome.finding,
                "rows": list(outcome.rows),
                "n": outcome.n,
            }
        )
    return pl.DataFrame(rows, schema=schema(CLAIMS))


def _effect(row: Mapping[str, Any]) -> str:
    return show_effect(None if row["effect"] is None else Effect(row["effect"], row["effect_low"], row["effect_high"]), row["unit"])


def as_text(table: pl.DataFrame) -> str:
    """A table for the terminal: a line per claim."""
    lines = [["claim", "verdict", "effect [95 %]", "threshold", "n", "statement"]]
    for row in table.iter_rows(named=True):
        lines.append([row["id"], row["verdict"], _effect(row), f"{show(row['threshold'])} {row['unit']}", str(row["n"]), row["statement"]])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines) + "\n"


def as_markdown(table: pl.DataFrame) -> str:
    """A page: the table, then each claim with its finding, threshold and rows."""
    lines = [
        "# Claims and verdicts",
        "",
        "| claim | statement | originally | verdict | effect [95 %] | threshold |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.iter_rows(named=True):
        cells = [row["id"], row["statement"], row["original_status"], f"**{row['verdict']}**", _effect(row)]
        cells.append(f"{show(row['threshold'])} {row['unit']}")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    for row in table.iter_rows(named=True):
        lines += ["", f"## {row['id']}: {row['verdict']}", "", row["statement"], "", row["finding"], ""]
        lines.append(f"- Threshold: {show(row['threshold'])} {row['unit']}. {row['threshold_reason']}")
        used = ", ".join(f"`{name}`" for name in row["rows"]) or "none"
        lines.append(f"- Rows ({row['n']} trials or records): {used}")
    return "\n".join(lines) + "\n"
