"""Does llama.cpp's converter take an architecture, and does a model of it run?"""

from __future__ import annotations

import polars as pl

from coldprefix.claims.checks import Check
from coldprefix.claims.data import Data
from coldprefix.claims.effect import Effect
from coldprefix.claims.parts import Phases
from coldprefix.claims.scope import Scope, scope_of
from coldprefix.claims.verdict import Outcome
from coldprefix.strict import Strict


class Parameters(Strict):
    """What llama.cpp's converter says to an architecture."""

    architecture: str
    models: tuple[str, ...] = ()
    phases: Phases = ("phase3a", "phase3b")


def converter_accepts(p: Parameters, threshold: float, data: Data) -> Outcome:
    """The converter's exit code; accepting is not running, so support needs verified trials of one of `models`, too."""
    record = data.converter
    ran = data.trials.filter("valid", pl.col("phase").is_in(p.phases), pl.col("model").is_in(p.models))
    if record is None:
        return Outcome("not decided", None, "Missing: the converter was not run (no record of it).", (), 0)
    code, message = float(record["returncode"]), " ".join(str(record["message"]).split())
    said = f'llama.cpp\'s converter, given {record["architecture"]}, ended with exit code {code:.0f}: "{message}"'
    effect, source, scope = Effect(code, code, code), ("the converter's record",), _scope(data)
    if record["architecture"] != p.architecture:
        return Outcome("not decided", effect, f"{said}; missing: its answer to {p.architecture}.", source, 1, scope)
    if code == threshold:
        if ran.is_empty():
            return Outcome(
                "not decided", effect, f"{said}; missing: a verified trial of {' or '.join(p.models)} on llama.cpp.", source, 1, scope
            )
        cells = ran.select(pl.format("{}/{}/{}/{}", "phase", "variant", "configuration", "state").unique(maintain_order=True)).to_series()
        return Outcome("supported", effect, f"{said}; {len(ran)} verified trials ran.", (*source, *cells), 1 + len(ran))
    if p.architecture in message and "not supported" in message:
        return Outcome("refuted", effect, f"{said}.", source, 1, scope)
    return Outcome("not decided", effect, f"{said}, which is no refusal of the architecture; repair the converter's run.", source, 1, scope)


def _scope(data: Data) -> Scope:
    """The converter is of the source that llama.cpp is built from; it runs no model, on any machine."""
    engine = scope_of([record for record in data.provenance if record["job"]["engine"] == "llamacpp"])
    return engine._replace(hardware=None, weights=None, flags=None)


CHECK = Check(parameters=Parameters, unit="exit code", run=converter_accepts, counts=True)
