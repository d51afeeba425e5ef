"""Do differently compiled libraries make one interface of an engine slower than the other?"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pydantic import Field

from coldprefix.claims.checks import Check
from coldprefix.claims.data import CellName, Data
from coldprefix.claims.parts import ratio_of, ratio_part, repeated_note
from coldprefix.claims.verdict import Outcome, Part, between, combine, limits, show, show_effect
from coldprefix.strict import Strict
from coldprefix.study.config import PhaseName


class Parameters(Strict):
    """The HTTP and the Python phase of one engine, with the same libraries or not."""

    http: PhaseName = "phase3a"
    python: PhaseName = "phase3b"
    variant: str = "main"
    repeated: str = "confound/repeated"
    repeated_configuration: str = "A512_B256"
    margin_pct: float = Field(default=10, gt=0)


class Pair(NamedTuple):
    """The same cell on both phases, and what its misses say: Python over HTTP."""

    python: CellName
    http: CellName
    part: Part


def binaries_explain_gap(p: Parameters, threshold: float, data: Data) -> Outcome:
    """Do differently compiled libraries make the gap between the Python and the HTTP phase?

    Refuted if the gap is there with identical libraries, or is absent with different ones; supported if it is there with
    different ones and verified misses. Identical libraries without a gap leave it open: both explanations predict that.
    """
    libraries = {phase: data.in_force(phase, (p.variant, p.repeated), "libraries") for phase in (p.http, p.python)}
    if absent := [phase for phase, found in libraries.items() if not found]:
        return Outcome("not decided", None, f"Missing: the libraries of {' and '.join(absent)} (provenance).", (), 0)
    same = len({json.dumps(value, sort_keys=True) for records in libraries.values() for _, value in records}) == 1
    pairs = _fresh(p, threshold, data)
    residuals = [pair.part for pair in pairs]
    told = Part("libraries", text=f"{p.http} and {p.python} mapped {'identical' if same else 'different'} libraries (sha256)")
    residual = Part("residual", text=_residual_text(p, data, pairs))
    if not same:
        lead = f"Miss TTFT with fresh prompts, {p.python} over {p.http}"
        return combine(residuals, threshold, lead, "x", every=False, extra=[told, residual])
    residual = replace(residual, cells=tuple(cell for part in residuals for cell in part.cells), n=sum(part.n for part in residuals))
    python, http = (
        CellName(phase=phase, variant=p.repeated, configuration=p.repeated_configuration, state="miss") for phase in (p.python, p.http)
    )
    over, under = (data.sample(cell, "query_ms", unverified=True, from_trial=1) for cell in (python, http))
    gap = ratio_part("gap with repeated prompts", over, under, limits("at_least", threshold))
    # With identical libraries, a gap of either kind is one that they cannot have made.
    against = [replace(part, agrees=False) for part in (gap, *residuals) if part.agrees]
    parts = against or [replace(gap, agrees=None)]
    return combine(parts, threshold, f"{p.python} over {p.http}", "x", extra=[told, residual, repeated_note(data, http)])


def _fresh(p: Parameters, threshold: float, data: Data) -> list[Pair]:
    """Verified misses with fresh prompts, in every configuration."""
    pairs = []
    for http in data.cells([p.http], p.variant, [], "miss"):
        python = http.model_copy(update={"phase": p.python})
        over, under = data.sample(python, "ttft_ms"), data.sample(http, "ttft_ms")
        pairs.append(Pair(python, http, ratio_part("residual", over, under, limits("at_least", threshold))))
    return pairs


def _residual_text(p: Parameters, data: Data, pairs: Sequence[Pair]) -> str:
    """What differs between verified misses of the two phases, and how much of it is transport and how much the engine's own time."""
    known = [(pair, pair.part.effect) for pair in pairs if pair.part.effect]
    if not known:
        return "; ".join(pair.part.missing for pair in pairs if pair.part.missing)
    worst, effect = max(known, key=lambda each: abs(math.log(each[1].value)))
    margin = 1 + p.margin_pct / 100
    inside = [between(own, 1 / margin, margin) for _, own in known]
    size = "within" if all(inside) else "beyond" if False in inside else "not certainly within"
    text = f"with fresh prompts {p.python} takes {show_effect(effect, 'x')} of {p.http}'s miss TTFT ({worst.http.configuration}, the "
    text += f"most different of {len(known)}), {size} the margin of {show(p.margin_pct)} %"
    engine = [data.sample(cell, "engine_prompt_ms") for cell in (worst.python, worst.http)]
    client = [data.sample(cell, "client_ms") for cell in (worst.python, worst.http)]
    if not any(s.missing for s in (*engine, *client)):
        text += f", of which the engine's own prompt time {show_effect(ratio_of(*engine), 'x')}, and transport and harness "
        text += f"{show(client[0].median)} ms ({p.python}) and {show(client[1].median)} ms ({p.http})"
    return text


CHECK = Check(parameters=Parameters, unit="x", run=binaries_explain_gap)
