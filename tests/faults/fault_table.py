"""docs/faults.md: what each fault did, written from what the tests saw (`make faults`)."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """A row of the table.

    Attributes:
        seconds: from the fault to the end of the run.
        at_most: seconds that the test allows for it.
    """

    section: str
    fault: str
    message: str
    seconds: float | None
    at_most: float | None
    left: str
    then: str


OUTCOMES: list[Outcome] = []
SOAK: list[str] = []  # lines
HEAD = """<!-- written by `make faults` from what the tests saw -->
# Faults

What each fault looks like to the user, how long after it the run has ended (and what the test allows), what is left behind, and what the next
run does. Done to real processes, model files against a Hub on this machine, with a tiny model; `timeout_s: 5`. "Left" is what the test finds of processes, partial files, sockets, shared
memory, temporary folders and locks.
"""


def record(
    section: str, fault: str, message: str, left: str, then: str = "", seconds: float | None = None, at_most: float | None = None
) -> None:
    """Add a row; the message's first line is shown."""
    shown = message.strip().splitlines()[0] if message.strip() else ""
    shown = re.sub(rf"{re.escape(tempfile.gettempdir())}/pytest-of-[^/]+/[^/]+/[^/]+", "…", shown)
    OUTCOMES.append(Outcome(section, fault, shown[:300].replace("|", "\\|").replace("<", "&lt;"), seconds, at_most, left, then))


def write() -> None:
    """Write the page to $COLDPREFIX_FAULT_TABLE, if that is set and anything has been recorded."""
    target = os.environ.get("COLDPREFIX_FAULT_TABLE")
    if not target or not OUTCOMES:
        return
    lines = [HEAD]
    for section in dict.fromkeys(outcome.section for outcome in OUTCOMES):
        rows = [outcome for outcome in OUTCOMES if outcome.section == section]
        timed = any(row.seconds is not None for row in rows)
        later = any(row.then for row in rows)
        columns = ["fault", "message", *(["ended after (allowed)"] if timed else []), "left", *(["the next run"] if later else [])]
        lines += [f"## {section}", "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
        for row in rows:
            _, fault, message, seconds, at_most, left, then = astuple(row)
            time = [f"{seconds:.1f} s ({at_most:.0f})" if seconds is not None and at_most is not None else "-"] if timed else []
            lines.append(f"| {' | '.join([fault, message, *time, left, *([then] if later else [])])} |")
        lines.append("")
    if SOAK:
        lines += ["## Soak", "", *SOAK, ""]
    Path(target).write_text("\n".join(lines).rstrip() + "\n")
