"""A trace: JSON lines, one request in each, in the order in which they came.

Four forms, one in a trace: OpenAI chat requests (`messages`, `tools`; also inside the `body` of a batch file), text (`text`, or `prompt` of the
completions API), token ids (`token_ids`, `prompt_token_ids`, or `prompt` as numbers), and block hashes as in the public traces of Mooncake (512
tokens a block) and Qwen-Bailian (16): `hash_ids`, `input_length`, and beside them `timestamp` and `output_length`. No message quotes a trace's text.
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from coldprefix.errors import ColdprefixError

Form = Literal["chat", "text", "tokens", "hashes"]
Bad = Literal["refuse", "skip"]
TITLES = {"chat": "a chat request", "text": "a text", "tokens": "token ids", "hashes": "block hashes"}
LONGEST_LINE = 64 << 20  # bytes: memory stays bounded, whatever the file is
LOOKED_AT = 1000  # first lines from which the size of a block is read


@dataclass(frozen=True, slots=True)
class Blocks:
    """A prompt as hashes of its blocks, non-negative integers, and its length in tokens."""

    hashes: list[int]
    tokens: int


@dataclass(frozen=True, slots=True)
class Chat:
    """A prompt as chat messages and tools, as a chat template wants them."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Request:
    """One request: the number of its line, its time as the trace has it (None: it has none), and its prompt."""

    line: int
    at: float | None
    prompt: Chat | str | list[int] | Blocks


class BadLine(ValueError):
    """What is wrong with a line."""


@dataclass
class Trace:
    """The requests of a file, once through; `again` reads one of them a second time.

    Args:
        bad: refuse: the first line that cannot be used ends it. skip: such lines are left out, and counted.

    Attributes:
        form: known after the first request; None before.
        skipped: reason: number of lines; first: reason: the first of them.
    """

    path: Path
    bad: Bad = "refuse"
    form: Form | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    _places: array[int] = field(default_factory=lambda: array("q"))  # where each request's line begins
    _before: float | None = None

    def __iter__(self) -> Iterator[Request]:
        """Raises ColdprefixError: the file cannot be read, holds no request, or a line cannot be used and bad is refuse."""
        try:
            with open(self.path, "rb") as file:
                number = place = 0
                while raw := file.readline(LONGEST_LINE + 1):
                    number += 1
                    begins, place = place, place + len(raw)
                    if raw.isspace():
                        continue
                    if len(raw) > LONGEST_LINE:
                        raise ColdprefixError(f"{self.path}, line {number}: it is longer than {LONGEST_LINE >> 20} MiB")
                    try:
                        request = self._request(number, raw)
                    except BadLine as why:
                        self.leave_out(number, str(why))
                        continue
                    self._places.append(begins)
                    yield request
        except OSError as error:
            raise ColdprefixError(f"cannot read {self.path}: {error.strerror}") from None
        if self.form is None:
            raise ColdprefixError(f"{self.path} holds no request{self._because()}")

    def again(self, index: int) -> Request:
        """The request that `__iter__` has given as number ``index``, from 0."""
        with open(self.path, "rb") as file:
            file.seek(self._places[index])
            entry = json.loads(file.readline())
        assert self.form
        return Request(0, None, READERS[self.form](_body(entry)))

    def leave_out(self, line: int, why: str) -> None:
        """A line cannot be used. Raises ColdprefixError, with its number, where such lines are refused."""
        if self.bad == "refuse":
            raise ColdprefixError(f"{self.path}, line {line}: {why}. Mend it, or write trace_bad: skip, which leaves such lines out")
        kind = why.partition(":")[0]
        self.skipped[kind] = self.skipped.get(kind, 0) + 1
        self.first.setdefault(kind, line)

    def _because(self) -> str:
        return ": " + "; ".join(self.left_out()) if self.skipped else ""

    def left_out(self) -> list[str]:
        """One line for each reason: how many lines, and the first."""
        return [f"{count} line{'s' * (count > 1)} left out, the first is {self.first[why]}: {why}" for why, count in self.skipped.items()]

    def _request(self, number: int, raw: bytes) -> Request:
        try:
            entry = json.loads(raw)
        except (ValueError, RecursionError):
            raise BadLine("it is not JSON") from None
        if not isinstance(entry, dict):
            raise BadLine("it is no JSON object")
        body = _body(entry)
        form = _form(body)
        if self.form and form != self.form:
            raise BadLine(f"forms are mixed: it holds {TITLES[form]}, the trace began with {TITLES[self.form]}")
        request = Request(number, self._time(entry), READERS[form](body))
        self.form = form
        return request

    def _time(self, entry: dict[str, Any]) -> float | None:
        at = entry.get("timestamp")
        if at is None:
            return None
        if isinstance(at, bool) or not isinstance(at, (int, float)) or not math.isfinite(at):
            raise BadLine("timestamp is not a number")
        # Against the line before, used or not: one wrong clock costs one line, not all that follow.
        before, self._before = self._before, float(at)
        if before is not None and at < before:
            raise BadLine(f"its clock runs backwards: {at:g} after {before:g}")
        return float(at)


def _body(entry: dict[str, Any]) -> dict[str, Any]:
    """Of a batch file's line, the request in it."""
    body = entry.get("body")
    return body if isinstance(body, dict) else entry


def _form(body: dict[str, Any]) -> Form:
    prompt = body.get("prompt")
    found: list[Form] = ["hashes"] if "hash_ids" in body else []
    found += ["chat"] if "messages" in body else []
    found += ["text"] if isinstance(body.get("text"), str) or isinstance(prompt, str) else []
    found += ["tokens"] if any(isinstance(ids, list) for ids in (body.get("token_ids"), body.get("prompt_token_ids"), prompt)) else []
    if not found:
        raise BadLine("it holds no prompt: none of messages, text, prompt, token_ids, hash_ids")
    if len(found) > 1:
        raise BadLine(f"it holds more than one prompt: {' and '.join(TITLES[form] for form in found)}")
    return found[0]


def _chat(body: dict[str, Any]) -> Chat:
    messages, tools = body["messages"], body.get("tools") or []
    if not isinstance(messages, list) or not messages:
        raise BadLine("messages is no list of messages")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise BadLine("tools is no list of tools")
    return Chat([_message(message, f"messages[{i}]") for i, message in enumerate(messages)], tools)


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadLine(f"{where} has no role")
    content = message.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in content):
            raise BadLine(f"{where}.content holds something that is no text")
        content = "\n".join(part["text"] for part in content)  # as vLLM and llama-server join them
    elif content is not None and not isinstance(content, str):
        raise BadLine(f"{where}.content is no text")
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise BadLine(f"{where}.tool_calls is no list of calls")
    return {**message, "content": content or "", **({"tool_calls": [_call(call) for call in calls]} if calls else {})}


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """Arguments as an object, as templates want them and engines give them; OpenAI's API has them as JSON text."""
    function = call.get("function")
    if isinstance(function, dict) and isinstance(function.get("arguments"), str):
        try:
            return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
        except ValueError:
            pass
    return call


def _text(body: dict[str, Any]) -> str:
    text = body["text"] if isinstance(body.get("text"), str) else body["prompt"]
    if not text:
        raise BadLine("its text is empty")
    return str(text)


def _tokens(body: dict[str, Any]) -> list[int]:
    ids: list[int] = next(ids for ids in (body.get("token_ids"), body.get("prompt_token_ids"), body.get("prompt")) if isinstance(ids, list))
    if not ids or not all(type(token) is int and 0 <= token < 2**31 for token in ids):
        raise BadLine("its token ids are not all numbers from 0")
    return ids


def _blocks(body: dict[str, Any]) -> Blocks:
    hashes, tokens = body["hash_ids"], body.get("input_length", body.get("input_tokens"))
    if type(tokens) is not int or tokens < 1:
        raise BadLine("input_length is not a number of tokens")
    if not isinstance(hashes, list):
        raise BadLine("hash_ids is no list")
    if hashes and type(hashes[0]) is str and all(type(name) is str for name in hashes):
        hashes = [int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest()) for name in hashes]
    if not all(type(name) is int and name >= 0 for name in hashes):
        raise BadLine("hash_ids holds something that is neither a number from 0 nor a text")
    return Blocks(hashes, tokens)


READERS: dict[Form, Any] = {"chat": _chat, "text": _text, "tokens": _tokens, "hashes": _blocks}


def fits(prompt: Blocks, block: int) -> bool:
    """Are there as many hashes as blocks, with or without one for the last, shorter one?"""
    return len(prompt.hashes) in (prompt.tokens // block, -(-prompt.tokens // block))


def block_of(path: Path) -> int:
    """Tokens of a block of a trace of hashes: the power of two that fits its first lines.

    Raises:
        ColdprefixError: none fits most of them, or several do.
    """
    sizes: list[int] = [2**i for i in range(14)]
    counts = dict.fromkeys(sizes, 0)
    seen = 0
    for request in Trace(path, "skip"):
        assert isinstance(request.prompt, Blocks)
        seen += 1
        for size in sizes:
            counts[size] += fits(request.prompt, size)
        if seen == LOOKED_AT:
            break
    best = [size for size in sizes if counts[size] == max(counts.values())]
    if max(counts.values()) * 2 <= seen:
        raise ColdprefixError(f"{path}: hash_ids and input_length fit no size of a block; write trace_block_tokens")
    if len(best) > 1:
        raise ColdprefixError(f"{path}: a block could have {' or '.join(map(str, best))} tokens; write trace_block_tokens")
    return best[0]


def form_of(path: Path) -> Form:
    """The form of the first request that can be used. Raises ColdprefixError if there is none."""
    trace = Trace(path, "skip")
    next(iter(trace), None)
    assert trace.form
    return trace.form
