"""claims.yaml: what is claimed, by which test and threshold it is decided, and which figure shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from coldprefix.claims.checks import check
from coldprefix.errors import ColdprefixError
from coldprefix.strict import OneOf, Strict, explain
from coldprefix.study import registry

FigureName = Annotated[str, OneOf("figure", registry.figures)]
CheckName = Annotated[str, OneOf("test", lambda: registry.CHECKS)]


class Threshold(Strict):
    """What the effect is compared with, and why with this."""

    value: float
    unit: str
    reason: str = Field(min_length=10)


class About(Strict):
    """What a claim is about. Where the data are of something else, they cannot refute it."""

    hardware: str | None = Field(default=None, min_length=3)


class Claim(Strict):
    """One entry of claims.yaml.

    Attributes:
        scope: the hardware that the claim is about, as a part of its name in provenance ("GTX 1650"). A claim without one is about any.
    """

    id: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", max_length=32)
    statement: str = Field(min_length=1)
    original_status: str = "not among its claims"
    scope: About = About()
    figure: FigureName | None = None
    test: CheckName
    parameters: dict[str, Any] = Field(default_factory=dict)
    threshold: Threshold

    @model_validator(mode="after")
    def fits_its_test(self) -> Claim:
        """Raises ValueError, a line per mistake, if the parameters or the threshold are not what the test takes."""
        own = check(self.test)
        lines = []
        if self.threshold.unit != own.unit:
            lines.append(f"threshold.unit: the test {self.test} compares in {own.unit!r}, not {self.threshold.unit!r}")
        try:
            parameters = own.parameters.model_validate(self.parameters)
        except ValidationError as error:
            lines += explain(error, own.parameters, "parameters")
        else:
            if getattr(parameters, "relation", None) == "within" and self.threshold.value < 1:
                lines.append(f"threshold.value: `within` is between 1/value and value; write 1.1 for 10 %, not {self.threshold.value}")
        if lines:
            raise ValueError("\n".join(lines))
        return self


def parse(values: Any) -> list[Claim]:
    """Check what claims.yaml holds.

    Raises:
        ColdprefixError: lists every mistake with its path and a correction.
    """
    if not isinstance(values, dict) or set(values) != {"claims"} or not isinstance(values["claims"], list) or not values["claims"]:
        raise ColdprefixError("claims.yaml must hold one key, `claims`, with a list of claims; see docs/claims.md")
    claims: list[Claim] = []
    taken: list[Any] = []
    lines: list[str] = []
    for i, entry in enumerate(values["claims"]):
        own = entry.get("id") if isinstance(entry, dict) else None
        name = f"claims.{i}" if own is None else f"claims.{i} ({own})"
        try:
            claims.append(Claim.model_validate(entry))
        except ValidationError as error:
            lines += explain(error, Claim, name)
        if own is not None and own in taken:
            lines.append(f"{name}.id: {own!r} is taken by an earlier claim; choose another")
        taken.append(own)
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
