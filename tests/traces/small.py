"""A tokenizer of one token for each byte, as a model's folder has it, and traces to read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers


def tokenizer_in(folder: Path, template: str | None = None) -> Path:
    """Write tokenizer.json, and the chat template, into ``folder``."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    own = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    folder.mkdir(parents=True, exist_ok=True)
    own.save(str(folder / "tokenizer.json"))
    config = {"eos_token": {"content": "<end>"}} | ({"chat_template": template} if template else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def written(file: Path, entries: Iterable[Any]) -> Path:
    """A trace: texts as they are, all else as JSON."""
    file.write_text("".join((entry if isinstance(entry, str) else json.dumps(entry)) + "\n" for entry in entries))
    return file


def chat(*texts: str, **more: Any) -> dict[str, Any]:
    """A chat request: the first text is the system's, then user and assistant take turns."""
    roles = ["system", *["user", "assistant"] * len(texts)]
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)], **more}


def hashes(ids: list[Any], tokens: int, at: float | None = None) -> dict[str, Any]:
    """A line of a public trace."""
    return {"input_length": tokens, "output_length": 5, "hash_ids": ids} | ({} if at is None else {"timestamp": at})
