"""A model in a folder of this machine, in the layout of a Hub repository: safetensors, in one file or several, config.json, tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from coldprefix.errors import ColdprefixError
from coldprefix.models.config_json import read_config, told
from coldprefix.models.local import LocalModel

# What engines and converters read of a folder; its README is no part of the model.
READ = (".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken")
INDEX = "model.safetensors.index.json"


class FolderModel(LocalModel):
    """Safetensors of this machine, used where they are."""

    source: Literal["folder"]
    path: str = Field(min_length=1, description="The folder that holds the safetensors and config.json.")

    @classmethod
    def told_at(cls, place: Path) -> dict[str, Any]:
        if not place.is_dir():
            raise ColdprefixError(f"{place} is no folder")
        if not (place / "config.json").is_file():
            gguf = next((file.name for file in sorted(place.glob("*.gguf"))), None)
            raise ColdprefixError(f"{place} holds no config.json" + (f"; name its GGUF file itself: {place / gguf}" if gguf else ""))
        return told(read_config(place / "config.json", place.name))

    def files(self) -> list[Path]:
        found = sorted(file for file in self.place.iterdir() if file.suffix in READ and file.is_file())
        weights = {file.name for file in found if file.suffix == ".safetensors"}
        if not weights:
            raise ColdprefixError(f"{self.place} holds no .safetensors file; weights are read from safetensors or GGUF only")
        absent = sorted(set(_of_index(self.place / INDEX)) - weights)
        if absent:
            raise ColdprefixError(f"{self.place} lacks {', '.join(absent)}, which its {INDEX} names; download or copy it again")
        return found

    def fill(self, name: str, folder: Path, earlier: dict[str, Any]) -> dict[str, str]:
        """Nothing is written: the weights must be readable, that is all."""
        from safetensors import SafetensorError, safe_open

        for file in self.files():
            if file.suffix == ".safetensors":
                try:
                    with safe_open(file, framework="numpy"):
                        pass
                except (OSError, SafetensorError) as error:
                    raise ColdprefixError(f"{file} (models.{name}.path) cannot be read: {error}. Download or copy it again") from None
        return {}


def _of_index(index: Path) -> list[str]:
    """The files of weights that an index names; none where there is none."""
    if not index.is_file():
        return []
    try:
        named = json.loads(index.read_text())["weight_map"].values()
        return [str(name) for name in named]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ColdprefixError(f"{index} cannot be read: {error!r}. Download or copy it again") from None
