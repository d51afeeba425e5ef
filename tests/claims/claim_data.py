"""Trials and records made up for the tests of claims, and the claims of the repository to test on them."""

from __future__ import annotations

import copy
import re
from datetime import UTC, datetime
from typing import Any

import polars as pl
import yaml
from conftest import ROOT

from coldprefix.claims import listed
from coldprefix.claims.table import CLAIMS, check_all
from coldprefix.data.tables import TRIALS, schema
from coldprefix.job import Cell
from coldprefix.study import registry

Rows = list[dict[str, Any]]
Q = 24
STARTS = (0.99, 1.0, 1.01)
LLAMA = ("phase3a", "phase3b")
REFUSAL = {"architecture": "OPTForCausalLM", "returncode": 1, "message": "ERROR: Model OPTForCausalLM is not supported"}


def cell(
    phase: str,
    variant: str,
    configuration: str,
    state: str,
    n: int = 4,
    starts: tuple[float, ...] = STARTS,
    job: str | None = None,
    **columns: Any,
) -> Rows:
    """Trials of one cell: ``n`` in each of as many engine processes as there are ``starts``, by which a process's times are multiplied.

    Times vary by 1 % within a process; a list gives each trial of a process its own value. By default a slot cache, all as intended.
    Cells with the same ``job`` are partners: they share its processes.
    """
    match = re.fullmatch(r"A(\d+)_B(\d+)", configuration)
    assert match
    a, b = int(match[1]), int(match[2])
    engine, interface = registry.phases()[phase]
    reused, length = (a + b, a + b + Q) if state == "hit" else (0, b + Q)
    base: dict[str, Any] = dict.fromkeys(TRIALS)
    base |= {"phase": phase, "engine": engine, "interface": interface, "sweep": variant.split("/")[0], "variant": variant}
    base |= {"configuration": configuration, "state": state, "model": "gpt2-standin", "request_form": "tokens", "content": "fresh"}
    base |= {"job": job or Cell(phase, variant, configuration, state).path, "own": True}
    base |= {"burn_in": False, "started_at": datetime(2026, 1, 1, tzinfo=UTC)}
    base |= {"warmup_prompt_tokens": a + b, "query_prompt_tokens": length}
    base |= {"query_cached_tokens": reused, "stream_cached_tokens": reused, "stream_evaluated_tokens": length - reused}
    base |= {"rewarm_cached_tokens": a + b - 1 if state == "hit" else 0}
    rows = []
    for process, start in enumerate(starts):
        for trial in range(n):
            row = base | {"process": process, "engine_process": f"{base['job']}:{process}", "trial": trial}
            for name, value in columns.items():
                own = value[trial] if isinstance(value, list) else value
                row[name] = own * start * (1 + 0.01 * (trial % 3 - 1)) if isinstance(own, float) and name.endswith("_ms") else own
            row["valid"] = row["rejection"] is None and not row["burn_in"]
            rows.append(row)
    return rows


def frame(*cells: Rows) -> pl.DataFrame:
    return pl.DataFrame([row for rows in cells for row in rows], schema=schema(TRIALS))


GTX = {"name": "NVIDIA GeForce GTX 1650"}


def record(
    phase: str, variant: str = "main", model: str = "gpt2-standin", gpu: dict[str, Any] | None = None, state: str = "miss", **in_force: Any
) -> dict[str, Any]:
    """The record of a cell's job, on a CPU unless a GPU is given."""
    engine, interface = registry.phases()[phase]
    job: dict[str, Any] = {
        "phase": phase,
        "variant": variant,
        "configuration": "A512_B256",
        "state": state,
        "engine": engine,
        "interface": interface,
    }
    job |= {"model": {"name": model, "positions": 1024, "random_weights": True}, "accelerator": "cuda" if gpu else "cpu", "threads": 2}
    job |= {"engine_key": "53ff4ec8aa", "environment_key": "b0763cd2bb", "protocol": {"content": "fresh"}}
    told = {"libraries": {"libllama.so": "aa"}, "kv_bytes_per_token": 36864, "version": "b1-0c1e570", "host_cache_mib": 0}
    host = {"cpu": "AMD EPYC", "gpus": [gpu] if gpu else []}
    return {"job": job, "host": host, "software": {"commit": "abc1234+"}, "in_force": told | in_force}


LISTED: list[dict[str, Any]] = yaml.safe_load((ROOT / "claims.yaml").read_text())["claims"]


def check(name: str, trials: pl.DataFrame, provenance: Rows | None = None, converter: Any = None) -> dict[str, Any]:
    """The row of one claim of the repository's claims.yaml."""
    claims = listed.parse({"claims": [entry for entry in LISTED if entry["id"] == name]})
    found = check_all(claims, trials, provenance or [], converter)
    assert found.schema == schema(CLAIMS)
    return found.row(0, named=True)


def both(phase: str, hit: float, miss: float, column: str = "ttft_ms", variant: str = "main", **columns: Any) -> Rows:
    """Hits and misses as partners in the processes of one job. What a process does to both cancels; a percent of it does not."""
    job = Cell(phase, variant, "A512_B256", "miss").path
    starts = columns.pop("starts", STARTS)
    wobble = tuple(start * (1 + 0.01 * (i - 1)) for i, start in enumerate(starts))
    values: list[dict[str, Any]] = [{column: value} | columns for value in (hit, miss)]
    found = cell(phase, variant, "A512_B256", "hit", starts=starts, job=job, **values[0])
    return found + cell(phase, variant, "A512_B256", "miss", starts=wobble, job=job, **values[1])


def interfaces(a: float, b: float, repeated: float, reused: int = 279) -> pl.DataFrame:
    """Fresh misses of 3a and 3b, and 3a's repeated ones from the second on; 3b's stay misses."""
    causes = {"phase3a": (a, 1.2), "phase3b": (b, 0.2)}
    measured = [
        cell(p, "main", "A512_B256", "miss", ttft_ms=ms, client_ms=client, engine_prompt_ms=ms - client)
        for p, (ms, client) in causes.items()
    ]
    why = [None] + 3 * ["reused 279 tokens, should be 0"]
    again: dict[str, Any] = {"content": "repeated", "query_cached_tokens": [0, *[reused] * 3]}
    rejections: dict[str, Any] = {"rejection": why, "query_rejection": why} if reused else {}
    measured += [cell("phase3a", "confound/repeated", "A512_B256", "miss", query_ms=[a, *[repeated] * 3], **again, **rejections)]
    measured += [cell("phase3b", "confound/repeated", "A512_B256", "miss", query_ms=b, content="repeated")]
    return frame(*measured)


OWN: dict[str, Any] = {
    "id": "mine",
    "statement": "The Python interface is no slower.",
    "test": "ratio",
    "parameters": {
        "metric": "ttft_ms",
        "over": {"phase": "phase3b", "configuration": "A512_B256", "state": "miss"},
        "under": {"phase": "phase3a", "configuration": "A512_B256", "state": "miss"},
        "relation": "within",
    },
    "threshold": {"value": 1.1, "unit": "x", "reason": "Machines drift by 5 to 10 %."},
}


def own(**changes: Any) -> dict[str, Any]:
    """OWN with values replaced by path, e.g. parameters__over__phase."""
    entry = copy.deepcopy(OWN)
    for path, value in changes.items():
        *sections, key = path.split("__")
        target = entry
        for section in sections:
            target = target[section]
        target[key] = value
    return entry
