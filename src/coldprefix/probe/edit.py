"""What one very edit of a prompt costs: the tokens that survive it, those that are computed again, and the time."""

from __future__ import annotations

import json
import secrets
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldprefix.engines.contract import Completion
from coldprefix.engines.endpoint.openai import OpenAiWire
from coldprefix.engines.endpoint.session import BLOCK, EndpointSession, together
from coldprefix.engines.vllm.wire import VllmWire
from coldprefix.errors import ColdprefixError
from coldprefix.job import common_prefix
from coldprefix.probe.tell import shown

TOKENS = 4  # that each streamed answer generates
Value = str | list[dict[str, Any]]


def read_prompt(path: Path) -> Value:
    """A prompt from a file: the messages of a chat if it ends with .json, else text as it stands there.

    Raises:
        ColdprefixError: it cannot be read, is empty, or is JSON of another form.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else text
    except (OSError, ValueError) as error:
        raise ColdprefixError(f"cannot read {path}: {error}") from None
    if isinstance(found, dict) and "messages" in found:
        found = found["messages"]
    if isinstance(found, str) and found:
        return found
    if isinstance(found, list) and found and all(isinstance(each, dict) and "role" in each for each in found):
        return found
    raise ColdprefixError(
        f'{path} holds no prompt; write text, or in a .json file a list of messages: [{{"role": "user", "content": "..."}}]'
    )


def form_of(before: Value, after: Value) -> str:
    """ "text" or "chat". Raises ColdprefixError if they are not of one kind, or the same."""
    if before == after:
        raise ColdprefixError("BEFORE and AFTER are the same")
    if isinstance(before, str) != isinstance(after, str):
        raise ColdprefixError("one of BEFORE and AFTER is text and the other a chat; give two of one kind")
    return "text" if isinstance(before, str) else "chat"


def parting(before: str, after: str) -> str:
    """Where two texts part: line, column and what stands there on either side."""
    place = common_prefix(before, after)  # type: ignore[arg-type]
    line, column = before.count("\n", 0, place) + 1, place - (before.rfind("\n", 0, place) + 1) + 1
    sides = (repr(text[place : place + 20]) if place < len(text) else "its end" for text in (before, after))
    return f"line {line}, column {column}: {' became '.join(sides)}"


@dataclass(frozen=True)
class Edit:
    """What was seen.

    Attributes:
        tokens: of AFTER; shared: that BEFORE begins with, too; behind: that both end with. None where the server tells no tokens.
        reused, computed: of AFTER, as the server says; None where no request was what it was meant to be.
        ttft_ms: of AFTER after BEFORE, where the server reports no reuse of all requests; again_ms: of BEFORE asked again.
        left_out: why requests, or their times alone, were left out.
        place: where texts part.
    """

    tokens: int | None
    shared: int | None
    behind: int | None
    reused: int | None
    computed: int | None
    ttft_ms: list[float]
    again_ms: list[float]
    left_out: list[str]
    place: str | None

    def text(self) -> str:
        """To read."""
        lines = [f"they part at {self.place}"] if self.place else []
        left = [f"{len(self.left_out)} requests left out, or their times; the first: {self.left_out[0]}"] if self.left_out else []
        if self.reused is None:
            time = f"TTFT {shown(self.ttft_ms)} ms is UNVERIFIED: " if self.ttft_ms else ""
            return "\n".join([*lines, *left, f"{time}what the edit costs is not known"])
        if self.shared is not None and self.tokens is not None and self.behind is not None:
            lines.append(f"{self.tokens} tokens, of which the first {self.shared} are those of BEFORE, and the last {self.behind}")
        lines.append(f"{self.reused} tokens survive, {self.computed} are computed{self._again()}")
        more = statistics.median(self.ttft_ms) - statistics.median(self.again_ms) if self.again_ms and self.ttft_ms else None
        per_token = f", {statistics.median(self.ttft_ms) / self.computed:.3f} a computed token" if self.computed and self.ttft_ms else ""
        lines += [f"TTFT {shown(self.ttft_ms)} ms{per_token} (n = {len(self.ttft_ms)})"] if self.ttft_ms else []
        if more is not None:
            lines.append(
                f"BEFORE asked again, still there: {shown(self.again_ms)} ms (n = {len(self.again_ms)}); the edit costs {more:+.1f} ms"
            )
        return "\n".join([*lines, *left])

    def _again(self) -> str:
        if self.tokens is None or self.shared is None or self.behind is None or self.reused is None:
            return ""
        new = self.tokens - self.shared - self.behind
        return f": {new} new, and {self.tokens - self.reused - new} again that BEFORE had, too"


def cost_of(session: EndpointSession, before: Value, after: Value, rounds: int, on_round: Callable[[int], None]) -> Edit:
    """Ask BEFORE, BEFORE again, AFTER, in each round; what the first round found must come again, or the round is left out.

    Args:
        session: opened for the form that `form_of` says.

    Raises:
        ColdprefixError: the two are the same to the server, or it refuses them.
    """
    wire = session.wire
    known: dict[str, list[int]] = {}
    if not isinstance(wire, OpenAiWire):
        known = {"before": wire.know(before), "after": wire.know(after)}
        if known["before"] == known["after"]:
            raise ColdprefixError("BEFORE and AFTER are the same to the server's tokenizer")

    def ask(which: str, value: Value, max_tokens: int, stream: bool) -> Completion:
        if isinstance(wire, OpenAiWire):
            return together(session.own(lambda: wire.send(value, max_tokens, stream, known=True), stream))
        return together(session.own(lambda: wire.complete(known[which], max_tokens, stream), stream))

    shared = common_prefix(known["before"], known["after"]) if known else None
    seen: list[tuple[int, int | None]] = []
    times: list[float] = []
    again: list[float] = []
    left_out: list[str] = []
    unverified: list[float] = []
    for number in range(rounds):
        on_round(number)
        if isinstance(wire, VllmWire):
            wire.also = {"cache_salt": secrets.token_hex(8)}  # so that each round finds nothing of the earlier ones
        ask("before", before, 1, stream=False)
        repeated = ask("before", before, TOKENS, stream=True)
        done = ask("after", after, TOKENS, stream=True)
        why = _unusable(done, shared, seen[0][0] if seen else None)
        if why or done.cached_tokens is None:
            left_out.append(why or "not counted")
            unverified += [done.ttft_ms] if done.cached_tokens is None and done.ttft_ms is not None else []
            continue
        seen.append((done.cached_tokens, done.prompt_tokens or (len(known["after"]) if known else None)))
        if done.ttft_ms is None or done.first_chunk_tokens != 1:  # a busy machine may do that; the count holds
            left_out.append(f"the first chunk carried {done.first_chunk_tokens} tokens, so the first token's time is unknown")
        else:
            times.append(done.ttft_ms)
        # A time of BEFORE is that of a prompt that is still there, or it says nothing.
        there = (
            repeated.cached_tokens is not None
            and repeated.cached_tokens >= (repeated.prompt_tokens or len(known.get("before", ()))) - BLOCK
        )
        if there and repeated.cached_tokens and repeated.ttft_ms is not None and repeated.first_chunk_tokens == 1:
            again.append(repeated.ttft_ms)
    tokens = seen[0][1] if seen else len(known["after"]) if known else None
    reused = seen[0][0] if seen else None
    return Edit(
        tokens=tokens,
        shared=shared,
        behind=_behind(known["before"], known["after"], shared) if shared is not None else None,
        reused=reused,
        computed=tokens - reused if tokens is not None and reused is not None else None,
        ttft_ms=times or unverified,
        again_ms=again,
        left_out=left_out,
        place=parting(before, after) if isinstance(before, str) and isinstance(after, str) else None,
    )


def _unusable(done: Completion, shared: int | None, first: int | None) -> str | None:
    if done.cached_tokens is None:
        return f"the server does not report its reuse: {done.uncounted}"
    if shared is not None and done.cached_tokens > shared:
        return f"of AFTER {done.cached_tokens} tokens were reused, and BEFORE shares only {shared} with it: the server knew it from before"
    if first is not None and done.cached_tokens != first:
        return f"{done.cached_tokens} tokens were reused, in the first round {first}: the server remembers that round, or others use it"
    return None


def _behind(before: Sequence[int], after: Sequence[int], shared: int) -> int:
    """Tokens that both end with, behind what they begin with."""
    most = min(len(before), len(after)) - shared
    return min(most, common_prefix(list(reversed(before)), list(reversed(after))))


def facts(edit: Edit) -> Mapping[str, Any]:
    """For JSON."""
    return edit.__dict__
