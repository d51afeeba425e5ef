"""A GGUF file of this machine, of any type and from anywhere, for the llama.cpp phases."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from coldprefix.errors import ColdprefixError
from coldprefix.models.gguf_file import Header, parts_of, read_header, read_whole
from coldprefix.models.local import LocalModel, absolute
from coldprefix.models.remembered import remembered

HEADER = "gguf-1"  # raise the number when read_header says something else


class GgufModel(LocalModel):
    """A GGUF file of this machine, of any quantisation, used where it is; for llama.cpp only."""

    source: Literal["gguf"]
    path: str = Field(
        min_length=1, description="The file; of a split one the first (NAME-00001-of-00003.gguf), beside which the others lie."
    )

    @property
    def gguf(self) -> str:
        return str(absolute(self.path))

    @property
    def gguf_type(self) -> str:
        return str(header_at(self.place)["file_type"])

    @classmethod
    def told_at(cls, place: Path) -> dict[str, Any]:
        return header_at(place)

    def files(self) -> list[Path]:
        return [self.place.with_name(part) for part in parts_of(self.place.name)]

    def content(self) -> dict[str, str]:
        """By number: a file that is renamed is the same model."""
        return {str(number): sha256 for number, sha256 in enumerate(super().content().values())}

    def fill(self, name: str, folder: Path, earlier: dict[str, Any]) -> dict[str, str]:
        """Nothing is written. That the file is whole was seen when its header was read."""
        return {}


def header_at(first: Path) -> Header:
    """As `read_whole`, the headers being read once. Raises ColdprefixError: see there."""
    if first.is_dir():
        raise ColdprefixError(f"{first} is a folder; name a .gguf file of it, or write source: folder")

    def header_of(path: Path) -> Header:
        found: Header = remembered(path, HEADER, read_header)
        return found

    return read_whole(first, header_of)
