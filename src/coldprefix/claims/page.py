"""The claims for people: a table for the terminal, and a page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from coldprefix.claims.effect import Effect
from coldprefix.claims.verdict import show, show_effect

PREAMBLE = """\
A verdict is about what was measured, and its scope says what that was. *refuted*: not so, whatever the hardware, or on the hardware that
the claim is about. *contradicted here*: not so on this machine, while the hardware that the claim is about was not measured. *not decided*:
an interval holds the threshold, or something is missing. Thresholds were written before this run, not before any measurement.
"""


def effect_of(row: Mapping[str, Any]) -> str:
    """The effect of a row of table.CLAIMS with its interval and unit; "-" without one."""
    return show_effect(None if row["effect"] is None else Effect(row["effect"], row["effect_low"], row["effect_high"]), row["unit"])


def short_scope(row: Mapping[str, Any]) -> str:
    """Hardware and engines, without builds: for a table."""
    engines = [re.sub(r" \([^)]*\)$", "", row["engines"])] if row["engines"] else []
    return "; ".join([*([row["hardware"]] if row["hardware"] else []), *engines]) or "-"


def full_scope(row: Mapping[str, Any]) -> str:
    """All that is known of it; "nothing was measured" otherwise."""
    known = [f"{name}: {row[name]}" for name in ("hardware", "engines", "weights", "flags") if row[name]]
    return ". ".join(known) or "nothing was measured"


def as_text(table: pl.DataFrame) -> str:
    """A table for the terminal: a line per claim."""
    lines = [["claim", "verdict", "effect [95 %]", "threshold", "n", "measured on", "statement"]]
    for row in table.iter_rows(named=True):
        threshold = f"{show(row['threshold'])} {row['unit']}"
        lines.append([row["id"], row["verdict"], effect_of(row), threshold, str(row["n"]), short_scope(row), row["statement"]])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines) + "\n"


def as_markdown(table: pl.DataFrame) -> str:
    """A page: the table, then each claim with its finding, scope, threshold and rows."""
    lines = ["# Claims and verdicts", "", PREAMBLE.strip()]
    commits = table["commit"].drop_nulls().unique(maintain_order=True).to_list()
    lines += [
        f"The cells were measured at commit {c}; `git diff {c.rstrip('+')} -- claims.yaml` shows what has changed since." for c in commits
    ]
    lines += ["", "| claim | statement | originally | verdict | effect [95 %] | threshold | measured on |", "|---|---|---|---|---|---|---|"]
    for row in table.iter_rows(named=True):
        cells = [row["id"], row["statement"], row["original_status"], f"**{row['verdict']}**", effect_of(row)]
        cells += [f"{show(row['threshold'])} {row['unit']}", short_scope(row)]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    for row in table.iter_rows(named=True):
        lines += ["", f"## {row['id']}: {row['verdict']}", "", row["statement"], "", row["finding"], ""]
        lines.append(f"- Scope: {full_scope(row)}")
        lines += [f"- Claimed of: {row['claimed_of']}"] if row["claimed_of"] else []
        lines.append(f"- Threshold: {show(row['threshold'])} {row['unit']}. {row['threshold_reason']}")
        used = ", ".join(f"`{name}`" for name in row["rows"]) or "none"
        lines.append(f"- Rows ({row['n']} trials or records): {used}")
    return "\n".join(lines) + "\n"
