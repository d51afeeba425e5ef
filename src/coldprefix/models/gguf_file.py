"""What a GGUF file says of itself, and whether it is whole: its header only, no tensor's data.

The format has no checksum. A file is whole if it ends where its last tensor does; a split one, if all its parts are there and agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coldprefix.errors import ColdprefixError

PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")  # llama.cpp finds the parts of a split file by these names

Header = dict[str, Any]


def parts_of(first: str) -> list[str]:
    """The names of all parts of a file that is named by its first; of one that is not split, its own.

    Raises:
        ColdprefixError: it is another part than the first.
    """
    split = PART.fullmatch(first)
    if not split:
        return [first]
    stem, number, count = split[1], int(split[2]), int(split[3])
    if number != 1:
        raise ColdprefixError(f"{first} is part {number} of a split file; name the first: {stem}-00001-of-{count:05d}.gguf")
    return [f"{stem}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever `gguf` stumbles over in a damaged file is one error, a ColdprefixError."""
    try:
        yield
    except (OSError, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise ColdprefixError(f"{path} is not a readable GGUF file, or not a whole one: {error!r}") from None


def check_end(path: Path, reader: Any) -> None:
    """Raises ColdprefixError unless the file ends where its last tensor does; llama.cpp's own programs fill up to the alignment after it."""
    end = max((int(tensor.data_offset) + int(tensor.n_bytes) for tensor in reader.tensors), default=0)
    size = path.stat().st_size
    if reader.tensors and not end <= size <= -(-end // int(reader.alignment)) * int(reader.alignment):
        raise ColdprefixError(f"{path} has {size} bytes, its tensors end at {end}: it is truncated or has been added to")


def read_header(path: Path) -> Header:
    """What one file says: architecture, positions (tokens), vocabulary (tokens), file_type, tensors, part, parts and whole_tensors (of all
    parts together; None where it is not split); None for what it does not say.

    Raises:
        ColdprefixError: it is not readable, or not whole.
    """
    from gguf import GGUFReader, LlamaFileType

    with readable(path):
        reader = GGUFReader(path)
        check_end(path, reader)

        def field(key: str) -> Any:
            return reader.fields[key].contents() if key in reader.fields else None

        architecture, type_number = field("general.architecture"), field("general.file_type")
        types = {int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType}
        tokens = reader.fields.get("tokenizer.ggml.tokens")
        return {
            "architecture": architecture,
            "positions": field(f"{architecture}.context_length"),
            "vocabulary": field(f"{architecture}.vocab_size") if tokens is None else len(tokens.data),
            "file_type": types.get(type_number, f"type {type_number}"),
            "tensors": len(reader.tensors),
            "part": field("split.no"),
            "parts": field("split.count"),
            "whole_tensors": field("split.tensors.count"),
        }


def read_whole(first: Path, header_of: Callable[[Path], Header] = read_header) -> Header:
    """As `read_header`, of a file and all its parts; ``tensors`` are those of all of them.

    Raises:
        ColdprefixError: one of them is missing, not readable or not whole, or belongs to another file.
    """
    names = parts_of(first.name)
    headers = []
    for number, name in enumerate(names):
        path = first.with_name(name)
        if not path.is_file():
            raise ColdprefixError(f"there is no file {path}" + (f", which is part {number + 1} of {len(names)}" if len(names) > 1 else ""))
        headers.append(header_of(path))
        if (headers[-1]["parts"] or 1) != len(names) or (headers[-1]["part"] or 0) != number:
            told = f"part {(headers[-1]['part'] or 0) + 1} of {headers[-1]['parts'] or 1}"
            raise ColdprefixError(f"{path} says that it is {told}: its name must say so, too (NAME-00001-of-00003.gguf)")
    whole = headers[0] | {"tensors": sum(header["tensors"] for header in headers)}
    if whole["architecture"] is None:
        raise ColdprefixError(f"{first} does not say its general.architecture: it is no model")
    if whole["whole_tensors"] not in (None, whole["tensors"]):
        raise ColdprefixError(
            f"{first} and its parts hold {whole['tensors']} tensors of {whole['whole_tensors']}: they are of several files"
        )
    return whole
