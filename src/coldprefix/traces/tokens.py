"""From a request to token ids, by the model's own chat template and tokenizer, and back from a token to the field it lies in."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray

from coldprefix.engines.contract import weights_of
from coldprefix.errors import ColdprefixError
from coldprefix.traces.reading import BadLine, Chat
from coldprefix.traces.tree import Ids

OWN_TEMPLATE = Path(__file__).with_name("chatml.jinja")
# Around each text of a request while it is rendered a second time, to see where it comes out. Private use: no text has them by right.
OPEN, NUMBERED, CLOSE = "\ue000", "\ue001", "\ue002"
MARK = re.compile(f"{OPEN}(\\d+){NUMBERED}|{CLOSE}")
API_KEY = re.compile(
    r"(content|reasoning_content|name|description|parameters|tool_call_id|tool_calls\[\d+\](\.function(\.(name|arguments))?)?|function\.(name|description|parameters))\b"
)
NAMED = re.compile(r"((?:messages|tools)\[\d+\])(.*)")


class Field(NamedTuple):
    """A text of the request, and where it stands in the prompt: characters from ``start`` to before ``end``."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Prompt:
    """A prompt as an engine gets it.

    Attributes:
        ids: token ids.
        text: what the ids were made of; None where the trace has ids only.
        starts: where each token begins in the text, in characters.
        fields: the request's texts in it, in their order there; empty where the template does not show them.
    """

    ids: Ids
    text: str | None = None
    starts: NDArray[np.int32] | None = None
    fields: tuple[Field, ...] = ()

    @property
    def body(self) -> int:
        """Tokens up to the end of its last text: without what the template writes for the answer to begin."""
        if not self.fields or self.starts is None:
            return len(self.ids)
        return int(np.searchsorted(self.starts, self.fields[-1].end))

    def text_at(self, token: int, tokens: int) -> str | None:
        """The text of so many tokens from a place on."""
        if self.text is None or self.starts is None:
            return None
        if token >= len(self.ids):
            return ""
        end = self.starts[token + tokens] if token + tokens < len(self.ids) else len(self.text)
        return self.text[self.starts[token] : max(end, self.starts[token] + 1)]

    def field_at(self, token: int) -> str | None:
        """The field that a token lies in: "messages[2].content"; between two, what the template writes before the next one. None: unknown."""
        if not self.fields or self.starts is None:
            return None
        place = int(self.starts[token]) if token < len(self.ids) else len(self.text or "")
        i = bisect.bisect_right([each.start for each in self.fields], place) - 1
        if i >= 0 and place < self.fields[i].end:
            return self.fields[i].name
        before, after = self.fields[i] if i >= 0 else None, self.fields[i + 1] if i + 1 < len(self.fields) else None
        if before and after and _owner(before.name) == _owner(after.name):
            return _owner(before.name)
        return f"template before {after.name}" if after else "template at the end"


def _owner(name: str) -> str:
    found = NAMED.match(name)
    return found[1] if found else name


class Tokenizer:
    """The chat template and the tokenizer of a model's folder.

    Raises:
        ColdprefixError: the folder has no tokenizer.json, or it or the template cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer as Library

        file = folder / "tokenizer.json"
        if not file.exists():
            raise ColdprefixError(
                f"{folder} has no tokenizer.json, which a trace of chats or texts needs; name another model, or write token ids"
            )
        try:
            self._tokenizer = Library.from_file(str(file))
            config = json.loads(path.read_text()) if (path := folder / "tokenizer_config.json").exists() else {}
        except Exception as error:  # the library raises Exception itself
            raise ColdprefixError(f"cannot read the tokenizer in {folder}: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        text = _template(folder, config)
        self.own_template = text is None
        # As transformers' apply_chat_template does (utils/chat_template_utils.py), which models' templates are written for.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        environment.filters["tojson"] = _to_json
        now = datetime.now()  # one for all requests: a clock in the template is no break of the trace's
        environment.globals |= {"raise_exception": _refuse, "strftime_now": now.strftime}
        try:
            self._template = environment.from_string(text if text is not None else OWN_TEMPLATE.read_text())
        except TemplateError as error:
            raise ColdprefixError(f"cannot read the chat template of {folder}: {error}") from None
        self._tokens = {key: _content(value) for key, value in config.items() if key.endswith("_token") and value}

    def chat(self, request: Chat) -> Prompt:
        """Raises BadLine: the template cannot write these messages."""
        text = self._render(request)
        names: list[str] = []
        marked = self._render(_marked(request, names)) if OPEN not in text else ""
        fields = _fields(marked, names)
        plain = MARK.sub("", marked) == text  # else the template looks into its texts, and where they stand is not known
        return self._encoded(text, special=False, fields=fields if plain else ())

    def text(self, text: str) -> Prompt:
        """A text as the completions API takes it: with the special tokens that the tokenizer adds by itself."""
        return self._encoded(text, special=True, fields=(Field("text", 0, len(text)),))

    def decode(self, ids: Ids) -> str:
        """The text of token ids."""
        return str(self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=False))

    def _render(self, request: Chat) -> str:
        try:
            return self._template.render(
                messages=request.messages, tools=request.tools or None, documents=None, add_generation_prompt=True, **self._tokens
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise BadLine(f"the model's chat template refuses it ({type(error).__name__})") from None

    def _encoded(self, text: str, special: bool, fields: tuple[Field, ...] = ()) -> Prompt:
        found = self._tokenizer.encode(text, add_special_tokens=special)
        if not found.ids:
            raise BadLine("it has no tokens")
        starts = np.array([start for start, _ in found.offsets], np.int32)
        return Prompt(np.array(found.ids, np.int32), text, starts, fields)


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text()
    found = config.get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in found}
        found = named.get("tool_use") or named.get("default")
    return found if isinstance(found, str) and found else None


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _marked(request: Chat, names: list[str]) -> Chat:
    """The request with every text marked by the place of its name in ``names``, which it fills."""

    def mark(value: Any, name: Callable[[str], str], key: str = "") -> Any:
        if isinstance(value, dict):
            return {own: mark(item, name, f"{key}.{own}" if key else str(own)) for own, item in value.items()}
        if isinstance(value, list):
            return [mark(item, name, f"{key}[{i}]") for i, item in enumerate(value)]
        if not isinstance(value, str) or key in ("role", "type") or not value.strip():
            return value
        names.append(name(key))
        core = value.strip()  # templates trim
        before, after = value.split(core, 1) if core else ("", "")
        return f"{before}{OPEN}{len(names) - 1}{NUMBERED}{core}{CLOSE}{after}"

    messages = [mark(message, partial(_name, f"messages[{i}]")) for i, message in enumerate(request.messages)]
    tools = [mark(tool, partial(_name, f"tools[{i}]")) for i, tool in enumerate(request.tools)]
    return Chat(messages, tools)


def _name(owner: str, key: str) -> str:
    """No deeper than the keys that the API has: those of parameters and arguments are the user's own words."""
    found = API_KEY.match(key)
    return f"{owner}.{found[0]}" if found else owner


def _fields(marked: str, names: list[str]) -> tuple[Field, ...]:
    return tuple(_spans(marked, names))


def _spans(marked: str, names: list[str]) -> Iterator[Field]:
    removed, opened = 0, None
    for found in MARK.finditer(marked):
        place = found.start() - removed
        removed += len(found[0])
        if found[1]:
            opened = (names[int(found[1])], place) if int(found[1]) < len(names) else None
        elif opened:
            yield Field(*opened, place)
            opened = None


def tokenizer_folder(models: Path, name: str) -> Path:
    """The folder with the tokenizer of the model ``name``. Raises ColdprefixError: it is a GGUF file alone."""
    try:
        return weights_of(models, name, "safetensors")
    except ColdprefixError as error:
        raise ColdprefixError(f"a trace of chats or texts needs the tokenizer.json of the model {name}: {error}") from None
