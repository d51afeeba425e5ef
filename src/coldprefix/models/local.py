"""What models that lie on this machine have in common: they are used where they are, and are what their bytes are.

They are never copied, linked or changed, and nothing is written beside them.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of
from coldprefix.models.config_json import TOLD
from coldprefix.models.contract import ModelEntry
from coldprefix.models.remembered import sha256_once


def absolute(path: str) -> Path:
    """What a path means, which ~ may begin, from the folder of the run."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:  # no such user
        return Path(path).absolute()


def place_of(path: str) -> Path:
    """As `absolute`, of what is there. Raises ColdprefixError: there is nothing."""
    place = absolute(path)
    try:
        place.stat()
    except FileNotFoundError:
        raise ColdprefixError(f"there is no file or folder {place}") from None
    except (OSError, ValueError) as error:  # not allowed, or no name of a file
        raise ColdprefixError(f"cannot look at {path!r}: {error}") from None
    return place


class LocalModel(ModelEntry):
    """An entry that names a place of this machine. What it does not say of its model is read there."""

    architecture: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]+$", description="Read from the model unless it is given.")
    positions: int = Field(default=0, ge=64, description="Trained context length, in tokens; read from the model unless it is given.")
    vocabulary: int = Field(default=0, ge=256, description="Read from the model unless it is given.")
    path: str = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def fill_in(cls, values: Any) -> Any:
        """An entry with what its model says of itself. Where that cannot be read, `missing` says so, of a model that is used."""
        if not isinstance(values, dict) or not isinstance(values.get("path"), str):
            return values
        given = {key: value for key, value in values.items() if value or key not in TOLD}
        if all(key in given for key in TOLD):
            return given
        try:
            said = cls.told_at(place_of(values["path"]))
        except ColdprefixError:
            return given
        return {**{key: said[key] for key in TOLD if said[key] is not None}, **given}

    @property
    def place(self) -> Path:
        """Raises ColdprefixError: there is nothing."""
        return place_of(self.path)

    @property
    def original(self) -> str:
        return sha256_of(json.dumps([self.source, self.content()], sort_keys=True).encode())

    @classmethod
    @abstractmethod
    def told_at(cls, place: Path) -> dict[str, Any]:
        """TOLD, as the model at ``place`` says it; None for what it does not say. Raises ColdprefixError: there is none."""

    @abstractmethod
    def files(self) -> list[Path]:
        """The files that engines read. Raises ColdprefixError: one is missing."""

    def content(self) -> dict[str, str]:
        """sha256 of its files by name, each read once. Raises ColdprefixError: one is missing."""
        return {file.name: sha256_once(file) for file in self.files()}

    def missing(self) -> Iterator[str]:
        try:
            self.told_at(self.place)
            self.files()
        except ColdprefixError as error:
            yield f"path: {error}"
            return
        yield from (f"{key}: the model does not say it; write it into its entry" for key in TOLD if not getattr(self, key))
