"""What a model source is: the type of its entries in config.yaml, which also knows how to fill a model's folder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from coldprefix.files import sha256_of
from coldprefix.strict import Strict

# llama-quantize's names that need no importance matrix.
Quantisation = Literal[
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"
]  # fmt: skip


class ModelEntry(Strict):
    """An entry of `models` in config.yaml. A source's own type adds `source`, a literal with its name, and its keys.

    Attributes:
        random_weights: figures and captions say so.
    """

    source: str
    architecture: str = Field(
        pattern=r"^[A-Za-z0-9_.-]+$", description='"architectures" in its config.json; of a GGUF file its general.architecture.'
    )
    positions: int = Field(ge=64, description="Trained context length, in tokens.")
    vocabulary: int = Field(ge=256)
    quantise: Quantisation | None = Field(
        default=None,
        description="The GGUF file that is made for the llama.cpp phases is quantised to this type by llama.cpp's own llama-quantize. vLLM "
        "cannot load such a model.",
    )

    random_weights: ClassVar[bool] = False

    @property
    def identity(self) -> str:
        """sha256 over what decides the bytes that an engine loads."""
        return sha256_of(f"{self.original} {self.quantise}".encode()) if self.quantise else self.original

    @property
    def original(self) -> str:
        """sha256 over what decides the bytes of the model as its source has it."""
        return sha256_of((self.model_dump_json(exclude={"quantise"}) + self.also_decides()).encode())

    @property
    def origin(self) -> str | None:
        """Where its files come from, for one that is downloaded: a new download from there must repeat the checksums of the first."""
        return None

    @property
    def place(self) -> Path | None:
        """The user's own folder, or GGUF file, that is used where it is and never changed; None: the model's folder is made."""
        return None

    @property
    def gguf(self) -> str | None:
        """Its own GGUF file, the first of a split one: a name in its folder, or the user's path; None: it is converted from safetensors."""
        return None

    @property
    def gguf_type(self) -> str:
        """The type of the GGUF file's weights, as llama.cpp calls it."""
        return self.quantise or "F16"

    @property
    def offers(self) -> tuple[str, ...]:
        """The kinds of weights that engines can have of it."""
        return ("gguf",) if self.gguf or self.quantise else ("safetensors", "gguf")

    def also_decides(self) -> str:
        """What beside the entry decides the bytes, e.g. the version of a generator."""
        return ""

    def problems(self) -> Iterator[str]:
        """What cannot work in the entry: "key: what is wrong; what to write"."""
        if self.gguf and self.quantise:
            yield f"quantise: {self.gguf} is a GGUF file already, which is measured as it is; leave the key out"

    def missing(self) -> Iterator[str]:
        """As `problems`, what the entry names and this machine lacks; asked of models that are used."""
        yield from ()

    @abstractmethod
    def fill(self, name: str, folder: Path, earlier: dict[str, Any]) -> dict[str, str]:
        """Write the model's files into the existing empty ``folder``, in the layout of a Hub repository; of one that has a place, nothing.

        Args:
            name: the entry's key, for messages.
            earlier: the record of an earlier download from the same origin, or {}.

        Returns:
            sha256 by name of weights that came as a pickle and were turned into safetensors.

        Raises:
            ColdprefixError: the model cannot be had, or is not what the entry says.
        """
