"""The tests that claims.yaml can name, one file each; docs/claims.md describes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from coldprefix.claims.data import Data
from coldprefix.claims.verdict import Outcome
from coldprefix.strict import Strict


@dataclass(frozen=True)
class Check:
    """A test of a claim.

    Attributes:
        parameters: the type of its section `parameters` in claims.yaml.
        unit: of effect and threshold; x is a ratio.
        run: (parameters, threshold, data) -> the verdict.
        counts: what decides is counted, not timed, and so the same on every machine.
    """

    parameters: type[Strict]
    unit: str
    run: Callable[[Any, float, Data], Outcome]
    counts: bool = False


def check(name: str) -> Check:
    """The test of this name, one of registry.CHECKS, from its file."""
    found: Check = import_module(f"coldprefix.claims.checks.{name}").CHECK
    return found
