"""A server that somebody else runs, as the configuration and the workflow know it: each entry of `endpoints` is a phase."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coldprefix.engines.contract import Engine, Session
from coldprefix.engines.endpoint.session import Asked, opened
from coldprefix.engines.endpoint.settings import EndpointSettings
from coldprefix.engines.reuse import Memory
from coldprefix.job import Job


class Endpoint(Engine):
    """Any of the servers of settings.ENGINES. Its interface is "http", its phase the entry's name."""

    name = "endpoint"
    title = "Endpoint"
    settings = EndpointSettings
    interfaces = {}  # noqa: RUF012
    must_agree = ()
    weights = "served"
    caching = "reuses"

    def environment(self, accelerator: str) -> str:
        return "driver"

    def memory(self, in_force: Mapping[str, Any], interface: str) -> Memory:
        return Asked()

    def open(self, job: Job, weights: Path, log: Path, owner: int | None, process: int) -> Session:
        return opened(job.phase, EndpointSettings.model_validate(job.settings), job.protocol, log)


ENGINE = Endpoint()
