"""Do differently compiled libraries make one interface of an engine slower than the other?"""

from __future__ import annotations

import json
import math

from pydantic import Field

from coldprefix.claims.checks import Check
from coldprefix.claims.data import CellName, Data, Sample
from coldprefix.claims.effect import Effect, between, combined
from coldprefix.claims.parts import missing_of, ratio_of, repeated_note
from coldprefix.claims.verdict import Outcome, Part, combine, show, show_effect
from coldprefix.strict import Strict
from coldprefix.study.config import EnginePhase


class Parameters(Strict):
    """The HTTP and the Python phase of one engine, with the same libraries or not."""

    http: EnginePhase = "phase3a"
    python: EnginePhase = "phase3b"
    variant: str = "main"
    repeated: str = "confound/repeated"
    repeated_configuration: str = "A512_B256"
    margin_pct: float = Field(default=10, gt=0)


def binaries_explain_gap(p: Parameters, threshold: float, data: Data) -> Outcome:
    """What binaries explain must be a difference in time for the same computation. So counts decide first: with the original's repeated
    prompts, does one phase reuse at least the threshold (in % of the prompt) more than the other? Then they did not compute the same, and
    their times say nothing about binaries: refuted. If they did compute the same, it is supported where libraries differ and verified
    misses with fresh prompts differ by more than `margin_pct`; else both explanations predict what is seen.
    """
    libraries = {phase: data.in_force(phase, (p.variant, p.repeated), "libraries") for phase in (p.http, p.python)}
    if absent := [phase for phase, found in libraries.items() if not found]:
        return Outcome("not decided", None, f"Missing: the libraries of {' and '.join(absent)} (provenance).", (), 0)
    same = len({json.dumps(value, sort_keys=True) for records in libraries.values() for _, value in records}) == 1
    fresh = [_fresh(p, http, data) for http in data.cells([p.http], p.variant, [], "miss")]
    http, python = (
        CellName(phase=phase, variant=p.repeated, configuration=p.repeated_configuration, state="miss") for phase in (p.http, p.python)
    )
    shares = [data.sample(cell, "query_cached_tokens", of="query_prompt_tokens", unverified=True, from_trial=1) for cell in (http, python)]
    differ = not same and bool(fresh) and all(part.judged() is True for part in fresh)
    part = _counts(p, shares[0], shares[1], threshold, differ)
    told = Part("libraries", text=f"{p.http} and {p.python} mapped {'identical' if same else 'different'} libraries (sha256)")
    extra = [told, *(_told(own) for own in fresh), repeated_note(data, http), repeated_note(data, python)]
    lead = f"Share of a repeated prompt that {p.http} reuses, less that on {p.python}"
    return combine([part], threshold, lead, "%", extra=extra)


def _counts(p: Parameters, http: Sample, python: Sample, threshold: float, differ: bool) -> Part:
    one, other = http.effect, python.effect
    if one is None or other is None:
        return Part("repeated", missing=missing_of([http, python]))

    def agrees(found: Effect) -> bool | None:
        equal = between(found, -threshold, threshold)
        return False if equal is False else True if equal and differ else None

    effect = combined((one, other), lambda a, b: a - b)
    apart = (
        "so the two phases did not compute the same thing" if agrees(effect) is False else "no proof that they computed different things"
    )
    return Part("repeated", agrees, effect, apart, (http.cell, python.cell), http.n + python.n, missing_of([http, python]))


def _fresh(p: Parameters, http: CellName, data: Data) -> Part:
    """Time for each token computed in verified misses, Python over HTTP: agrees where it is certainly beyond the margin."""
    cells = [http.model_copy(update={"phase": phase}) for phase in (p.python, p.http)]
    python, server = (data.sample(cell, "ttft_ms") for cell in cells)
    if not python.n or not server.n:
        return Part(http.configuration, missing=missing_of([python, server]))
    margin, effect = 1 + p.margin_pct / 100, ratio_of(python, server)
    inside = None if effect is None else between(effect, 1 / margin, margin)
    size = {True: "within", False: "beyond", None: "not certainly within"}[inside]
    text = (
        f"with fresh prompts {p.python} takes {show_effect(effect, 'x')} of {p.http}'s miss TTFT ({http.configuration}; jobs that may be "
    )
    text += f"minutes apart), {size} the margin of {show(p.margin_pct)} %"
    client = [data.sample(cell, "client_ms") for cell in cells]
    if all(sample.n for sample in client):
        text += f", of which transport and harness {show(client[0].median)} and {show(client[1].median)} ms"
    agrees = None if inside is None or effect is None or math.isnan(effect.value) else not inside
    return Part(http.configuration, agrees, effect, text, (python.cell, server.cell), python.n + server.n)


def _told(part: Part) -> Part:
    return Part(part.label, text=part.text or part.missing or "", cells=part.cells, n=part.n)


CHECK = Check(parameters=Parameters, unit="%", run=binaries_explain_gap, counts=True)
