"""An entry of `endpoints` in config.yaml."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from coldprefix.engines.contract import EngineSettings
from coldprefix.engines.endpoint.address import address_of
from coldprefix.errors import ColdprefixError

ENGINES = ("llamacpp", "vllm", "openai")  # folders of engines/ that have a running.py; the last is anything else
# Of the tokens that are drawn; which ones are sent is the session's choice. Trials of a process need five first tokens each.
VOCABULARY = 4096


class EndpointSettings(EngineSettings):
    """A running server that is measured as a phase of its own, under its name: it is not started, stopped or changed."""

    reuses: ClassVar[bool] = True  # whether it does is not ours to switch

    url: str = Field(
        description="http://127.0.0.1:8080, https://host/path or unix:///path/to/socket; with or without /v1 at its end. It holds no key."
    )

    @field_validator("url")
    @classmethod
    def check_url(cls, url: str) -> str:
        """Raises ValueError if it is no address, or holds a key."""
        try:
            address_of(url)
        except ColdprefixError as error:
            raise ValueError(str(error)) from None
        return url

    model: str | None = Field(
        default=None, description="The name under which it serves the model; if none is given, the first that it names."
    )
    api_key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable that holds its key. The key itself is written nowhere.",
    )
    engine: Literal["llamacpp", "vllm", "openai"] | None = Field(
        default=None,
        description="What it is: llama-server, `vllm serve`, or any other with OpenAI's API. If none is given, it is found out.",
    )
    context_tokens: int = Field(
        default=1024, ge=16, description="Tokens that it takes at least; refused where it says that it takes fewer."
    )
    may_reset: bool = Field(default=False, description="May its cache be emptied (reset: trial)? Then other users lose what it held.")
    remote: bool = Field(
        default=False,
        description="true: it may be on another machine, or a socket that other users can reach. Times then hold the network.",
    )
