"""What a probe says while it goes on: lines to read, or a JSON object on each."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

WIDTH = 13  # of the words at the left


@dataclass(frozen=True)
class Teller:
    """Says each thing at once. ``as_json``: as JSON lines, each with its `kind`."""

    as_json: bool

    def say(self, kind: str, title: str, text: str, **facts: Any) -> None:
        """One thing that was found: ``text`` to read, ``facts`` as JSON."""
        if self.as_json:
            self._line({"kind": kind, **facts, "text": text})
            return
        if not title:
            print("\n".join(f"  {line}".rstrip() for line in text.splitlines()), flush=True)
            return
        first, *more = text.splitlines() or [""]
        lines = [f"  {title:<{WIDTH}} {first}", *(f"  {'':<{WIDTH}} {line}" for line in more)]
        print("\n".join(line.rstrip() for line in lines), flush=True)

    def head(self, text: str) -> None:
        """A line for readers."""
        if not self.as_json:
            print(text, flush=True)

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The requests of trials (tables.REQUESTS), as JSON only."""
        for row in rows if self.as_json else ():
            self._line({"kind": "request", **row})

    def _line(self, content: Mapping[str, Any]) -> None:
        print(json.dumps(content, default=_plain), flush=True)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def shown(values: Sequence[float], digits: int = 1) -> str:
    """Median, and in brackets the least and the largest: of one process there is no interval. "-" of none."""
    if not values:
        return "-"
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def progress(text: str) -> None:
    """What goes on now, for somebody who watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="" if text else "\r", file=sys.stderr, flush=True)
