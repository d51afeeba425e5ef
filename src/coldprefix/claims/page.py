"""The claims for people: a table for the terminal, and a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from coldprefix.claims.data import Effect
from coldprefix.claims.verdict import show, show_effect


def _effect(row: Mapping[str, Any]) -> str:
    return show_effect(None if row["effect"] is None else Effect(row["effect"], row["effect_low"], row["effect_high"]), row["unit"])


def as_text(table: pl.DataFrame) -> str:
    """A table for the terminal: a line per claim."""
    lines = [["claim", "verdict", "effect [95 %]", "threshold", "n", "statement"]]
    for row in table.iter_rows(named=True):
        lines.append([row["id"], row["verdict"], _effect(row), f"{show(row['threshold'])} {row['unit']}", str(row["n"]), row["statement"]])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines) + "\n"


def as_markdown(table: pl.DataFrame) -> str:
    """A page: the table, then each claim with its finding, threshold and rows."""
    lines = [
        "# Claims and verdicts",
        "",
        "| claim | statement | originally | verdict | effect [95 %] | threshold |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.iter_rows(named=True):
        cells = [row["id"], row["statement"], row["original_status"], f"**{row['verdict']}**", _effect(row)]
        cells.append(f"{show(row['threshold'])} {row['unit']}")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    for row in table.iter_rows(named=True):
        lines += ["", f"## {row['id']}: {row['verdict']}", "", row["statement"], "", row["finding"], ""]
        lines.append(f"- Threshold: {show(row['threshold'])} {row['unit']}. {row['threshold_reason']}")
        used = ", ".join(f"`{name}`" for name in row["rows"]) or "none"
        lines.append(f"- Rows ({row['n']} trials or records): {used}")
    return "\n".join(lines) + "\n"
