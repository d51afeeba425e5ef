"""Models that refuse what they do not know, and one line for each mistake: its path, what is wrong, what to write instead."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, create_model
from pydantic_core import core_schema


class Strict(BaseModel):
    """A section of a file that people write: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def some_of(section: type[Strict], without: Collection[str] = ()) -> type[Strict]:
    """The same section with every key optional (None: not given), less the keys ``without``."""
    fields: dict[str, Any] = {}
    for name, field in section.model_fields.items():
        if name in without:
            continue
        kind: Any = field.annotation
        for constraint in [*field.metadata, *([Field(discriminator=field.discriminator)] if field.discriminator else [])]:
            kind = Annotated[kind, constraint]
        fields[name] = (kind | None, Field(default=None, description=field.description))
    return create_model(f"Some{section.__name__}", __base__=Strict, __doc__=section.__doc__, **fields)


@dataclass(frozen=True)
class OneOf:
    """Of a string: it is among ``choices``, e.g. Annotated[str, OneOf("phase", phases)]; ``what`` is what messages call it."""

    what: str
    choices: Callable[[], Collection[str]]

    def check(self, value: str) -> str:
        """Raises ValueError, with the choices, if it is none."""
        known = list(self.choices())
        if value not in known:
            raise ValueError(f"there is no {self.what} {value!r}{suggest(value, known)}; the {self.what}s are {', '.join(known)}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema) | {"enum": list(self.choices())}


def as_list(value: Any) -> Any:
    """`--config phases=phase3a,phase3b` arrives as one string."""
    if value is None:  # `--config partners=`
        return []
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def as_number(value: Any) -> Any:
    """Nested values given with --config arrive as strings; pydantic turns them into numbers except among literals."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def suggest(word: str, choices: Collection[str]) -> str:
    """ " (did you mean 'x'?)", or nothing."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """One line per mistake, each beginning with the key's path below ``prefix``.

    What a validator of a whole section raises holds one line per problem, each with a path below that section.
    """
    lines: dict[str, None] = {}
    for item in error.errors(include_url=False):
        found = _Place(model).follow(item["loc"])
        path = ".".join(filter(None, [prefix, *found.path]))
        kind, context, value = item["type"], item.get("ctx", {}), item["input"]
        if kind == "value_error":
            whole = f"{path}." if path else ""
            texts = str(context["error"]).splitlines()
            lines |= dict.fromkeys(f"{whole}{text}" if found.is_section else f"{path}: {text}" for text in texts)
            continue
        if kind == "extra_forbidden":
            keys = found.keys
            text = f"there is no such key{suggest(str(item['loc'][-1]), keys)}; the keys here are {', '.join(keys)}"
        elif kind == "missing":
            text = "this key is missing"
        elif kind in ("union_tag_invalid", "union_tag_not_found"):
            text = f"{context.get('tag', value)!r} is none of {context.get('expected_tags', context.get('discriminator'))}"
        elif kind == "literal_error":
            choices = re.findall(r"'([^']+)'", context["expected"])
            text = f"{value!r} is not {context['expected']}{suggest(str(value), choices)}"
        else:
            message = item["msg"].replace("Input should be", "should be")
            text = f"{value!r}: {message[0].lower()}{message[1:]}"
        if path:
            lines[f"{path}: {text}"] = None
    return list(lines)


class _Place:
    """Where one of pydantic's locations leads: its keys without the tags of unions, and the section that it is in."""

    def __init__(self, model: Any) -> None:
        self.path: list[str] = []
        self.keys: list[str] = []  # of the last section that was entered
        self._types = list(_members(model))

    @property
    def is_section(self) -> bool:
        return bool(self._types) and all(_is_section(kind) for kind in self._types)

    def follow(self, location: Sequence[int | str]) -> _Place:
        for part in location:
            self._step(part)
        return self

    def _step(self, part: int | str) -> None:
        sections = [kind for kind in self._types if _is_section(kind)]
        holders = [kind for kind in self._types if get_origin(kind) in (dict, list, tuple)]
        if fields := [kind.model_fields[part] for kind in sections if part in kind.model_fields]:
            self.keys = [key for kind in sections for key in kind.model_fields]
            self._types = [member for field in fields for member in _members(field.annotation)]
            self.path.append(str(part))
        elif holders:
            self._types = [member for kind in holders for member in _members(get_args(kind)[-1])]
            self.path.append(str(part))
        elif tagged := [kind for kind in sections if _has_tag(kind, part)]:
            self._types = list(tagged)
            self.keys = list(tagged[0].model_fields)
        elif sections and len(sections) == len(self._types):  # a key that does not exist
            self.keys = list(dict.fromkeys(key for kind in sections for key in kind.model_fields))
            self._types = []
            self.path.append(str(part))
        else:  # the name that pydantic gives to a member of a union
            self._types = [kind for kind in sections if str(part).lower().startswith(kind.__name__.lower())] or self._types


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _members(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows, without what is annotated to them and without None: that a section may be left out."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    elif annotation is not type(None):
        yield annotation


def _has_tag(section: type[BaseModel], tag: int | str) -> bool:
    """Does a union tell this section from its others by ``tag``? By its name, or by a literal of one of its fields."""
    literals = [get_args(field.annotation) for field in section.model_fields.values() if get_origin(field.annotation) is Literal]
    return str(tag).lower() == section.__name__.lower() or any(tag in values for values in literals)
