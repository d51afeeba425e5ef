"""A probe from the address to what it cannot vouch for."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coldprefix.data.raw import as_frame, write_cell
from coldprefix.engines.clock import long_lived
from coldprefix.engines.contract import Completion
from coldprefix.engines.endpoint.openai import RunningOpenAi
from coldprefix.engines.endpoint.session import UNDRAWN, EndpointSession
from coldprefix.engines.endpoint.settings import EndpointSettings
from coldprefix.engines.vllm.running import CountedWire
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job
from coldprefix.measure import provenance
from coldprefix.measure.protocol import Row
from coldprefix.probe import edit, looks, trials
from coldprefix.probe.tell import Teller, progress

UNVERIFIED = 3  # exit status where the server does not report its reuse
SCALE = 128  # tokens of the prompt that shows how fast it is
UNTOLD_CONTEXT = 1024  # where it does not say how much it takes


@dataclass(frozen=True)
class Asked:
    """What somebody wants to know.

    Attributes:
        seconds: about as long the trials may take; rounds: of them, at most; tokens: of their prompts, None: as fits.
        out: folder for the raw rows.
    """

    settings: EndpointSettings
    before: Path | None = None
    after: Path | None = None
    seconds: float = 40.0
    rounds: int = 5
    tokens: int | None = None
    timeout_s: float = 120.0
    out: Path | None = None
    as_json: bool = False


def probe(asked: Asked) -> int:
    """Ask a running server what its cache does, and say each thing as soon as it is known.

    Returns:
        0, or UNVERIFIED.

    Raises:
        ColdprefixError: nothing answers, it is not allowed, its stream is held back, it failed in mid-run, or a file cannot be read.
    """
    tell = Teller(asked.as_json)
    prompts = [edit.read_prompt(path) for path in (asked.before, asked.after) if path]
    form = edit.form_of(*prompts) if prompts else "tokens"
    if asked.out and asked.out.exists() and any(asked.out.iterdir()):
        raise ColdprefixError(f"{asked.out} is not empty; name another folder")
    tell.head(asked.settings.url)
    session = EndpointSession("the server", asked.settings, "tokens", asked.timeout_s)
    first = _introduce(tell, session)
    reports = first.cached_tokens is not None
    with long_lived():
        if prompts:
            session, reports = _edit(tell, asked, prompts, form)
        else:
            _cache(tell, asked, session, reports)
    _doubts(tell, session, reports)
    return 0 if reports else UNVERIFIED


def _introduce(tell: Teller, session: EndpointSession) -> Completion:
    """What it is, and whether it says what it reuses. Returns an answer of it."""
    told = session.told
    context = told["context_tokens"]
    size = f"{told['slots']} slots of {context} tokens" if isinstance(told["slots"], int) else f"slots: {told['slots']}, context: {context}"
    known = ", ".join(f"{key} {value}" for key, value in told.items() if key in ("block_tokens", "blocks") and value != "unknown")
    text = f"{session.server.title} {told['version']}, model {told['model']}; {size}{f', {known}' if known else ''}"
    tell.say("server", "server", text, **session.in_force())
    session.check_stream(UNDRAWN)
    done = session.complete(UNDRAWN, 1, stream=False)
    rounds = session.round_trip_ms
    way = session.client.ways[-1]
    tls = f", TLS {way.tls_ms:.1f} ms" if way.tls_ms is not None else ""
    trip = "unknown" if rounds is None else f"{rounds:.1f} ms"
    text = f"connecting {way.connect_ms:.2f} ms{tls}, apart from all times below; a tiny request {trip}, a part of them"
    tell.say("way", "way there", text, connect_ms=way.connect_ms, tls_ms=way.tls_ms, round_trip_ms=rounds)
    tell.say("stream", "stream", "tokens arrive as they are made")
    if done.cached_tokens is None:
        text = f"NO: {done.uncounted}.\nIt would be {session.server.tells_reuse}. Nothing below is verified."
    else:
        text = f"yes ({session.server.tells_reuse})"
        if isinstance(session.wire, CountedWire) and not session.wire.answers_tell:
            text = "yes, by its counters in /metrics, where they grew by the prompt exactly: nobody else asked meanwhile.\nIts answers do not say it: "
            text += "--enable-prompt-tokens-details"
    tell.say("reports", "reports reuse", text, reports=done.cached_tokens is not None, why_not=done.uncounted)
    return done


def _cache(tell: Teller, asked: Asked, session: EndpointSession, reports: bool) -> None:
    """Granularity, what is kept, and what things cost."""
    seed = secrets.randbits(31)
    fresh = looks.Fresh(seed)
    told = session.told["context_tokens"]
    context = told if isinstance(told, int) else UNTOLD_CONTEXT
    progress("how fast is it?")
    colds = [session.complete(fresh.tokens(min(SCALE, context // 2)), 1, stream=False) for _ in range(2)]
    words = 1.0 if colds[0].prompt_tokens else 3.0  # of a server that takes text only a word is up to so many tokens
    ms_per_token = min(cold.total_ms or 0.0 for cold in colds) / SCALE
    if reports:
        progress("granularity")
        found = looks.granularity(session, fresh, min(640, context - 32) if ms_per_token < 20 else 160)
        tell.say("granularity", "granularity", str(found), tokens=found.tokens, pairs=found.pairs)
        if found.tokens != 0 or any(reused for _, reused in found.pairs):
            progress("which prompts does it still know?")
            short = max(looks.SHORT, 2 * (found.tokens or 1) + 8) if (found.tokens or 0) < context // 8 else looks.SHORT
            kept = looks.kept(session, fresh, min(short, context // 4))
            text = kept.text(session.told["slots"])
            tell.say(
                "kept",
                "keeps",
                text,
                reused=kept.reused,
                total_ms=kept.total_ms,
                prompt_tokens=kept.length,
                told_slots=session.told["slots"],
            )
    length, rounds = trials.choose(ms_per_token, int(context / words), asked.seconds, asked.rounds)
    job = trials.job_of(asked.settings, asked.tokens or length, rounds, asked.timeout_s, seed)
    done = 0

    def on_trial(rows: list[Row]) -> None:
        nonlocal done
        done += 1
        progress(f"trial {done} of {(rounds + 1) * len(job.kinds)}")

    started = datetime.now(UTC)
    rows = trials.measure(session, job, on_trial)
    progress("")
    tell.rows(rows)
    costs = trials.costs(rows, reports)
    title = f"after a prompt of {asked.tokens or length} {'tokens' if words == 1 else 'words'} (medians, and the least and the largest of n trials)"
    tell.head(f"\n  What it costs{'' if reports else ' - UNVERIFIED'}, {title}:")
    tell.say("costs", "", trials.table(costs), verified=reports, costs=costs)
    tell.head("")
    if asked.out:
        _write(asked.out, session, job, rows, started)
        tell.say("written", "rows", f"{len(rows)} in {asked.out}", folder=str(asked.out))


def _edit(tell: Teller, asked: Asked, prompts: Sequence[edit.Value], form: str) -> tuple[EndpointSession, bool]:
    """What the edit of two files costs. Returns the session that asked, and whether what it says is verified."""
    session = EndpointSession("the server", asked.settings, form, asked.timeout_s)
    found = edit.cost_of(session, prompts[0], prompts[1], asked.rounds, lambda number: progress(f"round {number + 1} of {asked.rounds}"))
    progress("")
    tell.head(f"\n  From {asked.before} to {asked.after} ({form}):")
    tell.say("edit", "", found.text(), form=form, **edit.facts(found))
    tell.head("")
    return session, found.reused is not None


def _write(folder: Path, session: EndpointSession, job: Job, rows: list[Row], started: datetime) -> None:
    record: dict[str, Any] = {"host": provenance.host(), "started_at": started.isoformat(), "finished_at": datetime.now(UTC).isoformat()}
    record |= {"in_force": session.in_force(), "noted": [session.noted()], "engine_start_s": [0.0], "engine_used_before": [0]}
    record |= {
        "job": job.model_dump(mode="json"),
        "software": provenance.software() | {"python": platform.python_version()},
        "answers": None,
    }
    write_cell(folder / job.cell, as_frame(rows), record)


def _doubts(tell: Teller, session: EndpointSession, reports: bool) -> None:
    """What the probe cannot vouch for."""
    noted = session.noted()
    found = []
    looks, busy, foreign = noted["looked_for_others"], noted["others_seen"], noted["prompt_tokens_of_others"]
    if not looks:
        found.append("Other users: it does not tell whether it had any.")
    elif busy or foreign:
        asked = f", and took {foreign} prompt tokens from them meanwhile" if foreign else ""
        found.append(f"Other users: there were some. In {busy} of {looks} looks the server worked for them{asked}. Times hold their load.")
    else:
        found.append(f"Other users: none were seen in {looks} looks before requests; between, there may have been some.")
    unknown = [key for key, value in session.in_force().items() if value == "unknown"]
    found.append(
        f"Flags: {', '.join(unknown) or 'none that were asked for'} are unknown; what it says of the others was not checked against its behaviour."
    )
    found.append("Intervals: there are none. One server process is one sample, however many trials it has; another start may differ.")
    found.append("Clock: not calibrated on this machine (`snakemake calibration`). Times are of this machine, these weights, now.")
    if not session.client.local:
        found.append("Network: times hold it, with what others do on it.")
    if isinstance(session.server, RunningOpenAi):
        found.append("Engine: not known; what is said of reuse is the server's word, with no second source.")
    if not reports:
        found.append("TTFTs are UNVERIFIED: whether any request was a hit or a miss is not known. They go into no result.")
    tell.head("  What this cannot vouch for")
    for text in found:
        tell.say("doubt", "", text)
