"""Models that an engine was found not to run, kept by the content of both, so that no later run starts an engine to find it again.

What is kept holds for these very bytes: the model's identity, the engine's lock file and build, its settings, and the code that looks. Where one
of them is another, the engine is asked again. A failure that another time may be none (no memory, a time-out, a signal) is never kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from coldprefix.errors import ColdprefixError, Refused
from coldprefix.files import read_json, sha256_of, write_json
from coldprefix.job import Job
from coldprefix.setup import building

DECIDES = ("engine", "interface", "accelerator", "settings", "environment_key", "engine_key", "code")


def place(job: Job) -> Path:
    """Where what was found of a preflight's engine and model is kept, if anything was."""
    told = job.model_dump(mode="json")
    content = json.dumps([{key: told[key] for key in DECIDES}, job.model.identity], sort_keys=True)
    return building.CACHE / "refusals" / f"{job.engine}-{sha256_of(content.encode())[:16]}.json"


def keep(job: Job, why: Refused) -> None:
    """Keep what an engine said of a model."""
    path = place(job)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"engine": job.engine, "interface": job.interface, "model": job.model.name, "why": str(why)}
    write_json(path, found | {"found_at": datetime.now(UTC).isoformat(timespec="seconds")})


def known(job: Job) -> str | None:
    """What was found of a preflight's engine and model: "why (found DATE, kept in FILE)"; None if nothing was."""
    path = place(job)
    if not path.exists():
        return None
    told = read_json(path, f"Delete {path}.")
    why = str(told.get("why")).splitlines()[0]
    return f"{why} (found on {str(told.get('found_at'))[:10]} and kept in {path}; delete that to ask again)"


def check(jobs: Iterable[Job]) -> None:
    """Before anything is prepared: raises ColdprefixError if the engine of one of these preflights was found not to run its model."""
    lines = [f"{job.phase} cannot run {job.model.name}: {why}" for job in jobs if (why := known(job))]
    if lines:
        raise ColdprefixError("an earlier run has found that\n" + "\n".join(f"  {line}" for line in lines))
