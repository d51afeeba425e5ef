"""What a model source is: the type of its entries in config.yaml, which also knows how to fill a model's folder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from coldprefix.files import sha256_of
from coldprefix.strict import Strict


class ModelEntry(Strict):
    """An entry of `models` in config.yaml. A source's own type adds `source`, a literal with its name, and its keys.

    Attributes:
        random_weights: figures and captions say so.
    """

    source: str
    architecture: str = Field(pattern=r"^[A-Za-z0-9_]+$", description='"architectures" in its config.json.')
    positions: int = Field(ge=64, description="Trained context length, in tokens.")
    vocabulary: int = Field(ge=256)

    random_weights: ClassVar[bool] = False

    @property
    def identity(self) -> str:
        """sha256 over what decides the bytes of the model."""
        return sha256_of((self.model_dump_json() + self.also_decides()).encode())

    @property
    def origin(self) -> str | None:
        """Where its files come from, for one that is downloaded: a new download from there must repeat the checksums of the first."""
        return None

    def also_decides(self) -> str:
        """What beside the entry decides the bytes, e.g. the version of a generator."""
        return ""

    def problems(self) -> Iterator[str]:
        """What cannot work in the entry: "key: what is wrong; what to write"."""
        yield from ()

    @abstractmethod
    def fill(self, name: str, folder: Path, earlier: dict[str, Any]) -> dict[str, str]:
        """Write the model's files into the existing empty ``folder``, in the layout of a Hub repository.

        Args:
            name: the entry's key, for messages.
            earlier: the record of an earlier download from the same origin, or {}.

        Returns:
            sha256 by name of weights that came as a pickle and were turned into safetensors.

        Raises:
            ColdprefixError: the model cannot be had, or is not what the entry says.
        """
