"""A server that somebody else runs, as a session: nothing of it is started, stopped, or, unless that is allowed, emptied."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from coldprefix.engines.contract import Completion, NextToken, Session
from coldprefix.engines.endpoint.address import address_of
from coldprefix.engines.endpoint.client import HINTS, NOWHERE, RunningClient, key_of
from coldprefix.engines.endpoint.openai import RunningOpenAi
from coldprefix.engines.endpoint.settings import ENGINES, VOCABULARY, EndpointSettings
from coldprefix.engines.reuse import Memory, Promise
from coldprefix.engines.running import UNKNOWN, RunningServer
from coldprefix.errors import ColdprefixError
from coldprefix.job import Protocol, common_prefix

BLOCK = 256  # tokens: more than any engine's block that we know, or what llama-server leaves before a prompt's end
CHECK_TOKENS = 16  # generated to see whether a stream arrives as it is made
UNDRAWN = range(VOCABULARY - 32, VOCABULARY)  # prompts.token_range leaves these out: no trial's prompt begins so
CHECKS = 3  # streams that must all look held back
BUFFERED = 0.1  # of an answer's time: a stream whose tokens all come in its last tenth has been held back


class Asked(Memory):
    """What may be reused of a prompt where the cache's rule is not known: at most the longest prefix of what was sent before; of a prompt
    that goes on where another one ended, all but a block at least. What an edit leaves is a result.
    """

    def __init__(self) -> None:
        self._sent: list[list[int]] = []

    def ask(self, prompt: Sequence[int], generated: int) -> Promise:
        shared = [common_prefix(sent, prompt) for sent in self._sent]
        most = min(max(shared, default=0), len(prompt) - 1)
        goes_on = any(length == len(sent) for length, sent in zip(shared, self._sent, strict=True))
        self._sent.append(list(prompt))
        return Promise(max(1, most - BLOCK) if goes_on and most else 0, most)


class EndpointSession(Session):
    """A running server at an address.

    The drawn tokens are turned into others, of the server's vocabulary and in another way for each session: a server that keeps its cache
    must not know a prompt from an earlier run. What is equal stays equal.

    Attributes:
        server: what answers there.
        buffered: was a stream seen that arrived in one piece although it was not made so?

    Raises:
        ColdprefixError: nothing answers there, or the address is not allowed.
    """

    elsewhere = True

    def __init__(self, name: str, settings: EndpointSettings, form: str, timeout_s: float) -> None:
        self.name = name
        self._settings = settings
        address = address_of(settings.url)
        self.client = RunningClient(name, address, key_of(settings.api_key_env), timeout_s, settings.remote)
        self._processes = self.client.processes()
        self.elsewhere = not self._processes
        self.server = _server(self.client, settings)
        self.told = self.server.tells()
        self._check_context()
        self.wire = self.server.wire(form)
        if len(self.server.ids()) < VOCABULARY:
            raise ColdprefixError(f"{name}: a vocabulary of {len(self.server.ids())} ordinary tokens is too small; {VOCABULARY} are needed")
        salt = secrets.randbits(32)
        ids = list(self.server.ids())
        random.Random(salt).shuffle(ids)
        self._ids = ids
        self.salt = salt
        self._others: list[dict[str, float]] = []
        self._look()
        self._taken = self.server.prompt_tokens_so_far()
        self._own_tokens = 0
        self.round_trip_ms = self.client.round_trip_ms(self.server.quick)

    @property
    def identity(self) -> str:
        """The address: one server has one start, however often it is measured."""
        return self._settings.url

    def memory(self) -> Memory:
        return Asked()

    def sent(self, prompt: Sequence[int]) -> list[int]:
        """The ids that are sent for those that were drawn."""
        return [self._ids[token] for token in prompt]

    def seen(self, prompt: Sequence[int]) -> list[int]:
        return self.wire.render(self.sent(prompt)).seen

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        return together(self._ask(prompt, max_tokens, stream))

    def _ask(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        return self.own(lambda: self.wire.complete(self.sent(prompt), max_tokens, stream), stream)

    def own(self, ask: Callable[[], Completion], stream: bool) -> Completion:
        """What ``ask`` comes back with, which counts as ours and not as another user's."""
        if stream:
            self._look()
        done = ask()
        self._own_tokens += done.prompt_tokens or 0
        return done

    def next_token(self, prompt: Sequence[int]) -> NextToken | None:
        """Only of a server that may be emptied: whoever asks this wants to empty it next."""
        ask = getattr(self.wire, "next_token", None)
        found: NextToken | None = ask(self.sent(prompt)) if ask and self._settings.may_reset else None
        return found

    def reset(self) -> None:
        if not self._settings.may_reset:
            raise ColdprefixError(f"{self.name} is not ours to empty; write may_reset: true in its entry of endpoints if it may be")
        self.server.reset()

    def check_stream(self, prompt: Sequence[int]) -> None:
        """See that tokens arrive as they are made; a busy machine may delay one stream, what holds streams back delays every one.

        Raises:
            ColdprefixError: they all arrive at the end.
        """
        self.complete(prompt, 1, stream=False)
        for _ in range(CHECKS):
            done = self._ask(prompt, CHECK_TOKENS, stream=True)
            times, total = done.token_times_ms, done.total_ms or 0.0
            if len(times) < 2 or times[-1] - times[0] >= BUFFERED * total:
                return
        raise ColdprefixError(
            f"{self.name} streams, but all {len(times)} tokens arrived within {times[-1] - times[0]:.1f} ms at the end of {total:.1f} ms: "
            "something on the way, or the server itself, holds the stream back until it is complete, so no time to first token can be measured. "
            "Ask the server itself, or switch buffering off in the proxy (nginx: proxy_buffering off)"
        )

    def in_force(self) -> dict[str, Any]:
        return {**self.told, "server": self.server.title, "url": self._settings.url, "command": None}

    def noted(self) -> dict[str, Any]:
        """The way there and the load of others, as they were seen."""
        self._look()
        ways = self.client.ways
        tls = sorted(way.tls_ms for way in ways if way.tls_ms is not None)
        return {
            "salt": self.salt,
            "lookup_ms": round(ways[0].lookup_ms, 3),
            "connect_ms": round(sorted(way.connect_ms for way in ways)[len(ways) // 2], 3),
            "tls_ms": round(tls[len(tls) // 2], 3) if tls else None,
            "round_trip_ms": None if self.round_trip_ms is None else round(self.round_trip_ms, 3),
            "looked_for_others": len(self._others),
            "others_seen": sum(any(load.values()) for load in self._others),
            "others_most": max((sum(load.values()) for load in self._others), default=None),
            "prompt_tokens_of_others": self.foreign_tokens(),
        }

    def foreign_tokens(self) -> int | None:
        """Prompt tokens that the server has taken from others since this session began; None where it does not count."""
        now = self.server.prompt_tokens_so_far()
        return None if now is None or self._taken is None else max(0, now - self._taken - self._own_tokens)

    def _look(self) -> None:
        """Before a streamed request, when nothing of ours runs: does it work for others?"""
        load = self.server.others()
        self._others += [load] if load is not None else []

    def process_ids(self) -> list[int]:
        return self._processes

    def close(self) -> None:
        """It runs on."""

    def _check_context(self) -> None:
        told, wanted = self.told["context_tokens"], self._settings.context_tokens
        if isinstance(told, int) and wanted is not None and wanted > told:
            raise ColdprefixError(f"{self.name} takes {told} tokens, context_tokens says {wanted}; write at most {told}")


def together(done: Completion) -> Completion:
    """With the tokens that arrived at the same moment as the first one counted as its chunk: its own time is not known then."""
    times = done.token_times_ms
    return replace(done, first_chunk_tokens=max(done.first_chunk_tokens or 1, times.count(times[0]))) if times else done


def _server(client: RunningClient, settings: EndpointSettings) -> RunningServer:
    """What answers there. Raises ColdprefixError if it is not what ``engine`` says, or nothing that we can talk to."""
    status, text = client.get("/v1/models")
    if status in HINTS:
        raise ColdprefixError(f"{settings.url} answers {status}: {text[:200]}\n{HINTS[status]}")
    for engine in ENGINES if settings.engine is None else (settings.engine,):
        if engine == "openai":
            break
        kind: type[RunningServer] = import_module(f"coldprefix.engines.{engine}.running").RUNNING
        if kind.is_one(client):
            return kind(client, settings.model)
        if settings.engine is not None:
            raise ColdprefixError(
                f"{settings.url} is no {kind.title}: it does not answer as one; leave engine out, or write engine: openai"
            )
    found = RunningOpenAi(client, settings.model)
    if found.model == UNKNOWN:
        raise ColdprefixError(
            f"{settings.url}/v1/models names no model (it answers {status}: {text[:200]!r}); write the model's name (model, --model), or another URL"
        )
    return found


def opened(name: str, settings: EndpointSettings, protocol: Protocol, log: Path) -> EndpointSession:
    """A session for a cell; ``log`` says where the server's own log is.

    Raises:
        ColdprefixError: its stream is held back, or it does not report its reuse and the protocol does not keep what is not verified.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"{name} was not started by coldprefix; its log is {NOWHERE}: {settings.url}\n")
    session = EndpointSession(name, settings, protocol.request_form, protocol.timeout_s)
    session.check_stream(UNDRAWN)
    done = session.complete(UNDRAWN, 1, stream=False)
    if done.cached_tokens is None and protocol.max_rejected < 1:
        raise ColdprefixError(
            f"{name} does not report how many tokens it reused ({done.uncounted}), so no trial could be verified. It would be "
            f"{session.server.tells_reuse}. To keep its times as unverified rows, which go into no statistics and no verdict: max_rejected: 1"
        )
    return session
