"""A prompt in named segments, with how often each changes: what the layout advisor is asked about."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from coldprefix.errors import ColdprefixError
from coldprefix.strict import Strict, explain

OFTEN = {"never": 0.0, "monthly": 1 / 730, "weekly": 1 / 168, "daily": 1 / 24, "hourly": 1.0, "each minute": 60.0}  # times an hour
EACH = "each request"


class Segment(Strict):
    """A part of a prompt that changes as a whole, or grows at its end."""

    name: str = Field(min_length=1, max_length=40)
    tokens: int = Field(ge=1, description="Its length.")
    changes: Literal["never", "monthly", "weekly", "daily", "hourly", "each minute", "each request"] | float = Field(
        description="How often it changes; a number is times an hour."
    )
    added: int = Field(
        default=0, ge=0, description="Each change adds so many tokens at its end and leaves the rest; 0: a change replaces it."
    )
    place: Literal["free", "first", "last"] = Field(default="free", description="Where it must stand.")

    @model_validator(mode="after")
    def check(self) -> Segment:
        """Raises ValueError where it would add more than it has."""
        if self.added >= self.tokens:
            raise ValueError(f"added: {self.added} of {self.tokens} tokens; write less than tokens, or 0 for a change of all of it")
        if isinstance(self.changes, float) and self.changes < 0:
            raise ValueError("changes: write never, or a number of times an hour")
        return self

    def chance(self, requests_per_hour: float) -> float:
        """Probability that it has changed since the last request: changes come at fixed times, not in bursts."""
        if self.changes == EACH:
            return 1.0
        per_hour = self.changes if isinstance(self.changes, float) else OFTEN[self.changes]
        return min(1.0, per_hour / requests_per_hour)

    @property
    def kept(self) -> int:
        """Its tokens that a change leaves alone."""
        return self.tokens - self.added if self.added else 0


class Prompt(Strict):
    """A prompt and how often it is sent."""

    requests_per_hour: float = Field(gt=0, description="Requests that one cache sees in an hour.")
    segments: list[Segment] = Field(min_length=2, max_length=20, description="In the order in which they stand now.")

    @model_validator(mode="after")
    def check(self) -> Prompt:
        """Raises ValueError for names that come twice, or a last segment that is no question."""
        names = [segment.name for segment in self.segments]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"segments: {twice[0]!r} comes twice; give each a name of its own")
        if self.segments[-1].chance(self.requests_per_hour) < 1:
            raise ValueError(f"segments: the last one, {names[-1]!r}, must be the question: write changes: each request")
        return self

    @property
    def tokens(self) -> int:
        """Its length."""
        return sum(segment.tokens for segment in self.segments)

    def best_order(self) -> list[Segment]:
        """The order that computes the fewest tokens on a cache that reuses the common prefix, as far as the segments' places allow.

        Of two neighbours that one stands first for which L (1 - p) / p + k is more, with L its tokens, p its chance of a change and k what a
        change leaves of it: exchanging them changes the expected sum by the difference, so sorting by it is the best (the argument of Smith 1956,
        "Various optimizers for single-stage production"). The question stays last.
        """
        where = {"first": 0, "free": 1, "last": 2}

        def worth(segment: Segment) -> float:
            chance = segment.chance(self.requests_per_hour)
            return math.inf if chance == 0 else segment.tokens * (1 - chance) / chance + segment.kept

        *rest, question = self.segments
        return [*sorted(rest, key=lambda s: (where[s.place], -worth(s) if s.place == "free" else 0.0)), question]

    @property
    def question(self) -> Segment:
        """The last segment, which is another one in each request and stays where it is."""
        return self.segments[-1]


def breaks(order: Sequence[Segment], requests_per_hour: float) -> Iterator[tuple[Segment, int, float]]:
    """(segment, tokens before the first that is new, probability that it is the first segment that has changed), for each that can be."""
    start, unchanged = 0, 1.0
    for segment in order:
        chance = segment.chance(requests_per_hour)
        if chance * unchanged > 0:
            yield segment, start + segment.kept, chance * unchanged
        start, unchanged = start + segment.tokens, unchanged * (1 - chance)


def read_prompt(path: Path) -> Prompt:
    """Read a prompt file. Raises ColdprefixError with each mistake's place and what to write."""
    import yaml

    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Prompt.model_validate(values)
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in explain(error, Prompt))
        raise ColdprefixError(f"{path} cannot be used:\n{lines}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ColdprefixError(f"cannot read {path}: {error}") from None
