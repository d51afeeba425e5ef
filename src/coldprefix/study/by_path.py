"""A model that is given by its path in the place of a name: it becomes an entry of `models` that is named after its file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

from coldprefix.errors import ColdprefixError
from coldprefix.models.gguf_file import PART
from coldprefix.models.local import place_of


def with_models_by_path(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with an entry for each path that `model` or `phase_models` hold, and the entry's name in the place of the path.

    Raises:
        ColdprefixError: there is nothing at a path, or no model; begins with the key.
    """
    result = dict(values)
    models = dict(result["models"]) if isinstance(result.get("models"), Mapping) else {}
    added: dict[str, dict[str, str]] = {}

    def name_of(key: str, given: Any) -> Any:
        if not isinstance(given, str) or given in models or not ("/" in given or given.endswith(".gguf")):
            return given
        try:
            entry = _entry(place_of(given))
        except ColdprefixError as error:
            raise ColdprefixError(f"{key}: {error}") from None
        name = _name(Path(entry["path"]))
        names = chain([name], (f"{name}-{number}" for number in count(2)))
        free = next(n for n in names if n not in models and added.get(n, entry) == entry)
        added[free] = entry
        return free

    if "model" in result:
        result["model"] = name_of("model", result["model"])
    if isinstance(phases := result.get("phase_models"), Mapping):
        result["phase_models"] = {phase: name_of(f"phase_models.{phase}", given) for phase, given in phases.items()}
    return {**result, "models": models | added} if added else result


def _entry(place: Path) -> dict[str, str]:
    if place.is_dir():
        return {"source": "folder", "path": str(place)}
    if place.suffix == ".gguf":
        return {"source": "gguf", "path": str(place)}
    raise ColdprefixError(f"{place} is no .gguf file; of a model in safetensors, name the folder")


def _name(place: Path) -> str:
    """What the pattern of names allows of a file's name."""
    split = PART.fullmatch(place.name)
    stem = split[1] if split else place.name.removesuffix(".gguf")
    return re.sub(r"[^A-Za-z0-9_.]+", "-", stem).lstrip("-._")[:60] or "model"
