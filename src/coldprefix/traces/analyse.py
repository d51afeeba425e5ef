"""A trace without an engine: what each request shares with an earlier one, what caches of given sizes would reuse, where prompts break.

Memory is bounded by what is remembered, not by the length of the trace. Of hashes: `blocks.MOST_BLOCKS` prefixes and as many blocks (together about
1 GB at most), the caches of the sizes asked for, and 100 bytes a request. Of tokens: 4 bytes for each token that no earlier prompt shares.
"""

from __future__ import annotations

import hmac
import secrets
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from coldprefix.errors import ColdprefixError
from coldprefix.traces import breaks
from coldprefix.traces.blocks import MOST_BLOCKS, Known, Lru, chained, keys_of, whole
from coldprefix.traces.reading import Bad, BadLine, Blocks, Chat, Form, Request, Trace, block_of, fits, form_of
from coldprefix.traces.tokens import Prompt, Tokenizer
from coldprefix.traces.tree import Tree

ROW: dict[str, tuple[pl.DataType, str]] = {
    "line": (pl.Int32(), "its line in the file"),
    "at": (pl.Float64(), "its time as the trace has it"),
    "prompt_tokens": (pl.Int32(), "length of its prompt"),
    "earlier_line": (pl.Int32(), "line of the latest earlier request that shares the longest prefix; null: nothing is shared"),
    "ideal_tokens": (
        pl.Int32(),
        "what an unlimited cache of all earlier prompts would reuse, all but the last token at most; of hashes, whole blocks",
    ),
    "block_tokens": (pl.Int32(), "the same in whole blocks"),
    "again_tokens": (
        pl.Int32(),
        "tokens behind the break that stand in that earlier request, too; null: hashes that depend on the whole prefix cannot tell",
    ),
    "kind": (pl.String(), "why the prefix ends: first, goes on, clock, identifier, gone, put in, another order, other text"),
    "field": (pl.String(), "the message and field that the first differing token lies in"),
    "earlier_field": (pl.String(), "the same in the earlier request"),
    "resumes": (pl.String(), "the field with which one of the two goes on behind what the other has not"),
    "here": (pl.String(), "text of the first differing token; with trace_text: false a hash"),
    "there": (pl.String(), "the same in the earlier request"),
    "here_from": (pl.String(), "text of the next 8 tokens"),
    "there_from": (pl.String(), "the same in the earlier request"),
}
SCHEMA = {name: dtype for name, (dtype, _) in ROW.items()}
CHUNK = 50_000  # rows that are held as Python objects
KEPT = 256  # prompts that are at hand to be compared with; older ones are read and made again
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Options:
    """What is asked.

    Attributes:
        context: longest prompt and one generated token, in tokens; None: whatever comes.
        vocabulary: token ids that the model has; None: whatever comes.
        block: tokens of a block of the caches; None: of hashes what the trace says, else 16.
        sizes: of the limited caches, in tokens.
        most: blocks that the unlimited cache remembers.
        show: false: no text of the trace, only hashes of it.
    """

    bad: Bad = "refuse"
    context: int | None = None
    vocabulary: int | None = None
    block: int | None = None
    sizes: tuple[int, ...] = ()
    most: int = MOST_BLOCKS
    show: bool = True


@dataclass(frozen=True)
class Analysis:
    """Attributes:
    rows: a row for each request (ROW), with a column `lru_SIZE` for each size: what a cache of so many tokens reuses.
    known: what is known of the whole: form, block, left_out (lines), own_template, bounded (the unlimited cache forgot something: then
        ideal_tokens is a lower bound).
    """

    rows: pl.DataFrame
    known: dict[str, Any]


def analyse(file: Path, options: Options, tokenizer: Callable[[], Tokenizer] | None = None) -> Analysis:
    """Read a trace and say of each request what could be reused of it, and why not more.

    Args:
        tokenizer: makes the model's; called for chats and texts only.

    Raises:
        ColdprefixError: the file or one of its lines cannot be used, or no tokenizer is at hand for its form.
    """
    form = form_of(file)
    trace = Trace(file, options.bad)
    block = options.block or (block_of(file) if form == "hashes" else 16)
    caches = [Lru(max(1, size // block)) for size in options.sizes]
    known: dict[str, Any] = {"form": form, "block": block, "own_template": None}
    if form == "hashes":
        source: _OfHashes | _OfTokens = _OfHashes(trace, options, block)
    else:
        source = _OfTokens(trace, options, block, _needed(form, file, tokenizer))
        known["own_template"] = source.tokenizer.own_template if source.tokenizer and form == "chat" else None
    frames, rows = [], list[Row]()
    schema = SCHEMA | {f"lru_{size}": pl.Int32() for size in options.sizes}
    for row, keys in source.rows():
        rows.append((*row, *(whole(cache.ask(keys), row[2], block) for cache in caches)))
        if len(rows) == CHUNK:
            frames.append(pl.DataFrame(rows, schema, orient="row"))
            rows.clear()
    frames.append(pl.DataFrame(rows, schema, orient="row"))
    table = pl.concat(frames)
    if table.is_empty():
        raise ColdprefixError(f"{file} holds no request that can be used: {'; '.join(trace.left_out())}")
    if form == "hashes" and not table["again_tokens"].sum():  # hashes of whole prefixes: what comes again has another name
        table = table.with_columns(again_tokens=pl.lit(None, pl.Int32))
    return Analysis(table, known | {"left_out": trace.left_out(), "bounded": source.forgot})


def _needed(form: Form, file: Path, tokenizer: Callable[[], Tokenizer] | None) -> Tokenizer | None:
    if form != "tokens" and tokenizer is None:
        raise ColdprefixError(
            f"{file} holds {'chats' if form == 'chat' else 'texts'}, so a model's tokenizer is needed; name the model's folder"
        )
    return tokenizer() if tokenizer and form != "tokens" else None


class _OfHashes:
    """Rows of a trace of block hashes."""

    def __init__(self, trace: Trace, options: Options, block: int) -> None:
        self._trace, self._options, self._block = trace, options, block
        self._prefixes, self._contents = Known(options.most), Known(options.most)

    @property
    def forgot(self) -> bool:
        return self._prefixes.forgot

    def rows(self) -> Iterator[tuple[Row, list[int]]]:
        """(the row, keys of the prompt's whole blocks)"""
        block, prefixes, contents = self._block, self._prefixes, self._contents
        lines, lengths = array("i"), array("i")  # of the requests before: their lines, and their whole blocks
        for request in self._trace:
            prompt = request.prompt
            assert isinstance(prompt, Blocks)
            why = None if fits(prompt, block) else f"{len(prompt.hashes)} hashes are not the blocks of {block} tokens of its prompt"
            why = why or too_long(prompt.tokens, self._options.context)
            if why:
                self._trace.leave_out(request.line, why)
                continue
            hashes = prompt.hashes[: prompt.tokens // block]
            keys = chained(hashes)
            shared, earlier = 0, None
            for key in keys:
                number = prefixes.get(key)
                if number is None:
                    break
                shared, earlier = shared + 1, number
            again = sum(contents.get(name) is not None for name in hashes[shared:]) * block
            for key, name in zip(keys, hashes, strict=True):
                prefixes.put(key, len(lines))
                contents.put(name, len(lines))
            kind = breaks.FIRST if earlier is None else breaks.GOES_ON if lengths[earlier] <= shared else breaks.OTHER
            before = None if earlier is None else lines[earlier]
            lines.append(request.line)
            lengths.append(len(hashes))
            ideal = whole(shared, prompt.tokens, block)
            yield (request.line, request.at, prompt.tokens, before, ideal, ideal, again, kind, *([None] * 7)), keys


class _OfTokens:
    """Rows of a trace of chats, texts or token ids."""

    def __init__(self, trace: Trace, options: Options, block: int, tokenizer: Tokenizer | None) -> None:
        self._trace, self._options, self._block = trace, options, block
        self.tokenizer = tokenizer
        self.forgot = False
        self._lines: list[int] = []
        self._places: list[int] = []  # in the trace, of the requests that were used
        self._key = secrets.token_bytes(16)  # for this run only: a hash of one token by itself could be guessed
        self._made_again = lru_cache(KEPT)(lambda number: prompt_of(trace.again(self._places[number]), tokenizer))

    def rows(self) -> Iterator[tuple[Row, list[int]]]:
        tree = Tree()
        last: Prompt | None = None
        for place, request in enumerate(self._trace):
            try:
                prompt = prompt_of(request, self.tokenizer)
                check(prompt, self._options)
            except BadLine as error:
                self._trace.leave_out(request.line, str(error))
                continue
            number = len(self._lines)
            shared, earlier = tree.add(prompt.ids, number)
            found = breaks.Break(breaks.FIRST, 0)
            if earlier is not None:
                other = last if earlier == number - 1 and last else self._made_again(earlier)
                found = breaks.explain(prompt, other, shared)
            self._lines.append(request.line)
            self._places.append(place)
            last = prompt
            keys = keys_of(prompt.ids, self._block)
            texts = [self._shown(text) for text in (found.here, found.there, found.here_from, found.there_from)]
            ideal = min(shared, len(prompt.ids) - 1)
            before = None if earlier is None else self._lines[earlier]
            lengths = (len(prompt.ids), before, ideal, ideal // self._block * self._block, found.again_tokens)
            yield (request.line, request.at, *lengths, found.kind, found.field, found.earlier_field, found.resumes, *texts), keys

    def _shown(self, text: str | None) -> str | None:
        if text is None or self._options.show:
            return text
        return "#" + hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256").hex()[:12]


def prompt_of(request: Request, tokenizer: Tokenizer | None) -> Prompt:
    """The prompt of a request that is no hashes. Raises BadLine: there is none."""
    if isinstance(request.prompt, list):
        return Prompt(np.array(request.prompt, np.int32))
    assert tokenizer and not isinstance(request.prompt, Blocks)
    return tokenizer.chat(request.prompt) if isinstance(request.prompt, Chat) else tokenizer.text(request.prompt)


def check(prompt: Prompt, options: Options) -> None:
    """Raises BadLine: it does not fit the context, or has token ids that the model has not."""
    if why := too_long(len(prompt.ids), options.context):
        raise BadLine(why)
    if options.vocabulary is not None and int(prompt.ids.max()) >= options.vocabulary:
        raise BadLine(f"it holds token ids that the model has not: {int(prompt.ids.max())}, of {options.vocabulary}")


def too_long(tokens: int, context: int | None) -> str | None:
    """What is wrong with a prompt of so many tokens, or None."""
    if context is None or tokens < context:
        return None
    return f"its prompt does not fit the context: {tokens} tokens and one for the answer, of {context}"


def sizes_of(rows: pl.DataFrame) -> Sequence[int]:
    """Sizes of the limited caches in a table of rows, in tokens."""
    return [int(name.removeprefix("lru_")) for name in rows.columns if name.startswith("lru_")]


def sums(rows: pl.DataFrame) -> dict[str, Any]:
    """Tokens of all requests: of their prompts, what an ideal cache reuses, what comes again behind a break (None: not known), what is left, and by size
    what a limited cache reuses."""

    def tokens(column: str) -> int:
        return int(rows[column].cast(pl.Int64).sum())  # a million prompts have more than 2^31 of them

    total, ideal, blocks = tokens("prompt_tokens"), tokens("ideal_tokens"), tokens("block_tokens")
    again = tokens("again_tokens") if rows["again_tokens"].null_count() == 0 else None
    limited = {size: tokens(f"lru_{size}") for size in sizes_of(rows)}
    return {
        "requests": rows.height,
        "prompt": total,
        "ideal": ideal,
        "blocks": blocks,
        "again": again,
        "rest": total - ideal - (again or 0),
        "lru": limited,
    }
