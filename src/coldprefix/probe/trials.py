"""What an append, an edit in the middle and a cold prompt cost, by the study's own protocol (measure/protocol.py)."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coldprefix.engines.endpoint.session import EndpointSession
from coldprefix.engines.endpoint.settings import VOCABULARY, EndpointSettings
from coldprefix.job import Job
from coldprefix.measure import protocol
from coldprefix.probe.tell import shown

STATES = {"hit": "append", "substitute-1@50%": "edit in the middle", "cold": "cold prompt"}
LENGTHS = (2048, 1024, 512, 256, 128)
QUESTION = 24  # tokens that are appended
COMPUTED = 5.6  # prompt lengths that a round computes: 1.1 for an append, 2.5 for an edit, 2 for a cold prompt
NAME = "probe"


def choose(ms_per_token: float, context: int, seconds: float, rounds: int) -> tuple[int, int]:
    """(tokens of the prompts, rounds) that take about ``seconds``; the longest prompts of LENGTHS that allow all rounds, or else fewer."""
    fit = [length for length in LENGTHS if length + QUESTION + 16 <= context] or [max(16, context // 2)]
    cost_s = {length: COMPUTED * length * ms_per_token / 1e3 for length in fit}
    length = next((length for length in fit if cost_s[length] * (rounds + 1) <= seconds), fit[-1])
    return length, max(1, min(rounds, int(seconds / max(cost_s[length], 1e-9)) - 1))


def job_of(settings: EndpointSettings, length: int, rounds: int, timeout_s: float, seed: int) -> Job:
    """The job of a probe: each state in each round, in random order."""
    lengths = {"A": length // 2, "B": length - length // 2, "Q": QUESTION}
    name = f"A{lengths['A']}_B{lengths['B']}"
    return Job.model_validate(
        {
            **{"phase": NAME, "sweep": "main", "variant": "main", "configuration": name, "state": "hit"},
            **{"engine": "endpoint", "interface": "http", "accelerator": "unknown", "threads": 0},
            "kinds": [{"configuration": name, "lengths": lengths, "state": state} for state in STATES],
            "model": {"name": settings.model or "unknown", "source": "endpoint", "random_weights": False, "identity": settings.url}
            | {"positions": settings.context_tokens, "vocabulary": VOCABULARY // 2},  # looks.Fresh has the other half
            "protocol": {
                **{"processes": 1, "trials": rounds, "burn_in": 1, "partners": list(STATES)[1:], "settle_ms": 5, "stream_tokens": 4},
                **{"content": "fresh", "request_form": "tokens", "reset": "never", "answers": "agree", "max_rejected": 1, "seed": seed},
                **{"timeout_s": timeout_s, "start_timeout_s": timeout_s},
            },
            "settings": settings.model_dump(mode="json"),
            **{"environment": "driver", "environment_key": "", "engine_key": "", "code": ""},
        }
    )


def measure(session: EndpointSession, job: Job, on_trial: Callable[[list[protocol.Row]], None]) -> list[protocol.Row]:
    """The rows of all rounds (tables.REQUESTS). Raises ColdprefixError as of `protocol.run_process`."""
    return protocol.run_process(session, job, 0, 0, on_trial)


def costs(rows: Sequence[Mapping[str, Any]], verified: bool) -> list[dict[str, Any]]:
    """Of each state its counts and times: of the streamed requests of all trials that were what they were meant to be, less the first.

    Args:
        verified: does the server report its reuse? If not, nothing is known of any trial, and the times of all are given.
    """
    found: list[dict[str, Any]] = []
    for state, title in STATES.items():
        own = [row for row in rows if row["state"] == state and not row["burn_in"]]
        bad = {row["trial"] for row in own if row["rejection"]} if verified else set()
        good = [row for row in own if row["trial"] not in bad and row["step"] == "stream" and row["ttft_ms"] is not None]
        ttft = [row["ttft_ms"] for row in good]
        line = {"state": state, "title": title, "n": len(good), "rejected": len(bad), "ttft_ms": ttft}
        line |= {key: sorted({row[key] for row in good}, key=str) for key in ("prompt_tokens", "cached_tokens", "evaluated_tokens")}
        line["why"] = next((row["rejection"] for row in own if row["rejection"]), None)
        found.append(line)
    hit = found[0]
    for line in found:
        line["more_tokens"], line["more_ms"], line["more_ms_per_token"] = (
            _beyond(line, hit) if verified and line is not hit else (None,) * 3
        )
    return found


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """`costs` to read: counts first."""
    lines = [f"{'':<19}{'prompt':>8}{'reused':>9}{'computed':>10}   {'TTFT, ms':<26}{'more than an append':<34}{'n':>3}"]
    for line in found:
        counts = [_one(line[key]) for key in ("prompt_tokens", "cached_tokens", "evaluated_tokens")]
        more = "-"
        if line["more_ms"] is not None:
            more = f"{line['more_tokens']:+d} tokens, {line['more_ms']:+.1f} ms: {line['more_ms_per_token']:.3f} a token"
        lines.append(
            f"{line['title']:<19}{counts[0]:>8}{counts[1]:>9}{counts[2]:>10}   {shown(line['ttft_ms']):<26}{more:<34}{line['n']:>3}"
        )
    rejected = [line for line in found if line["rejected"]]
    lines += [f"{line['rejected']} trials of {line['title']} left out; the first: {line['why']}" for line in rejected]
    return "\n".join(lines)


def _beyond(line: Mapping[str, Any], hit: Mapping[str, Any]) -> tuple[int, float, float] | tuple[None, None, None]:
    """(tokens computed more than an append, ms more, ms for each of them), from medians."""
    if not line["n"] or not hit["n"]:
        return None, None, None
    tokens = int(statistics.median(line["evaluated_tokens"]) - statistics.median(hit["evaluated_tokens"]))
    ms = statistics.median(line["ttft_ms"]) - statistics.median(hit["ttft_ms"])
    return (tokens, ms, ms / tokens) if tokens > 0 else (None, None, None)


def _one(values: Sequence[int | None]) -> str:
    """A count that all trials share, or its range."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return str(known[0]) if len(known) == 1 else f"{min(known)}-{max(known)}"
