"""The model that a running server serves: nothing of it is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from coldprefix.errors import ColdprefixError
from coldprefix.models.contract import ModelEntry


class EndpointModel(ModelEntry):
    """What an entry of `endpoints` serves. It is made of that entry; nobody needs to write one."""

    source: Literal["endpoint"]
    url: str = Field(description="As in `endpoints`.")
    serves: str | None = Field(default=None, description="The name under which it is served; null: the first that the server names.")
    architecture: str = "unknown"

    @property
    def offers(self) -> tuple[str, ...]:
        return ("served",)

    def fill(self, name: str, folder: Path, earlier: dict[str, Any]) -> dict[str, str]:
        raise ColdprefixError(f"the model {name} is on the server at {self.url}: there are no files of it")
