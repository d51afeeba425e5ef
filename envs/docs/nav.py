"""A hook of mkdocs: leaves out of `nav` the pages that docs/ does not hold (yet). A page in no line of `nav` is mkdocs' own warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def present(entries: list[Any], docs: Path) -> list[Any]:
    """The entries whose page exists, and the sections that have one."""
    kept: list[Any] = []
    for entry in entries:
        ((title, what),) = entry.items()
        if isinstance(what, list):
            if inside := present(what, docs):
                kept.append({title: inside})
        elif (docs / what).is_file():
            kept.append(entry)
    return kept


def on_config(config: Any) -> Any:
    """Called by mkdocs when it has read mkdocs.yml."""
    config.nav = present(config.nav, Path(config.docs_dir))
    return config
