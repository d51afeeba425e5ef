"""A server of an engine that somebody else has started, as its HTTP interface shows it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from coldprefix.engines.client import Client
from coldprefix.engines.wire import Wire
from coldprefix.errors import ColdprefixError

UNKNOWN = "unknown"
# Token ids that every vocabulary of today's language models has: special ones stand below them or at the other end.
ORDINARY = range(1000, 30_000)


class RunningServer(ABC):
    """What a running server tells of itself, and how it is sent prompts.

    Args:
        model: the name under which it serves; None: the first that it names.

    Attributes:
        title: what it is called; tells_reuse: where it reports its reuse, and how that is switched on.
        quick: a path that answers at once.
    """

    title: ClassVar[str]
    tells_reuse: ClassVar[str]
    quick: ClassVar[str] = "/health"

    def __init__(self, client: Client, model: str | None) -> None:
        self.client = client
        self.model = model or self._first_model()

    @classmethod
    @abstractmethod
    def is_one(cls, client: Client) -> bool:
        """Does such a server answer there?"""

    @abstractmethod
    def wire(self, form: str) -> Wire:
        """Requests to it."""

    def tells(self) -> dict[str, Any]:
        """Its settings in force as far as it tells them: model, version, context_tokens, slots and more; "unknown" where it does not."""
        return {"model": self.model, "version": UNKNOWN, "context_tokens": UNKNOWN, "slots": UNKNOWN}

    def ids(self) -> Sequence[int]:
        """Token ids that its vocabulary surely has, of ordinary tokens."""
        return ORDINARY

    def others(self) -> dict[str, float] | None:
        """What it does for others now: {"running", "waiting"}; None where it does not tell."""
        return None

    def prompt_tokens_so_far(self) -> int | None:
        """Prompt tokens that it has taken from anybody since it started; None where it does not count."""
        return None

    def reset(self) -> None:
        """Empty its cache. Raises ColdprefixError where it cannot."""
        raise ColdprefixError(f"{self.title} cannot be told to empty its cache")

    def _models(self) -> list[Mapping[str, Any]]:
        found = self.client.told("/v1/models").get("data")
        return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []

    def _first_model(self) -> str:
        return next((str(entry["id"]) for entry in self._models() if entry.get("id")), UNKNOWN)


def metrics_of(text: str) -> dict[str, float]:
    """The sums of the values of a page of metrics in Prometheus' text form, by name, over all labels."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if line.startswith("#") or not name:
            continue
        try:
            found[name.partition("{")[0]] = found.get(name.partition("{")[0], 0.0) + float(value)
        except ValueError:
            continue
    return found


def labels_of(text: str, metric: str) -> dict[str, str]:
    """The labels of the first line of a metric; {} where there is none."""
    line = next((line for line in text.splitlines() if line.startswith(f"{metric}{{")), "")
    return dict(re.findall(r'(\w+)="([^"]*)"', line))
