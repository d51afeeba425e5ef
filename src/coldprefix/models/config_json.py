"""What config.json says of a model, and what no file of a model may ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coldprefix.errors import ColdprefixError
from coldprefix.models.contract import ModelEntry

TOLD = ("architecture", "positions", "vocabulary")  # keys of an entry that its files may tell, too
POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")


def read_config(path: Path, name: str) -> dict[str, Any]:
    """A config.json; what concerns the text of a model of more than text is read as its own. ``name`` is for messages.

    Raises:
        ColdprefixError: it holds no JSON object.
    """
    try:
        config = dict(json.loads(path.read_text()))
        inner = config.get("text_config")
        return {**config, **inner, "architectures": config.get("architectures")} if isinstance(inner, dict) else config
    except OSError as error:
        raise ColdprefixError(f"cannot read config.json of the model {name}: {error}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise ColdprefixError(f"config.json of the model {name} holds no JSON object ({error}): is it the right file?") from None


def told(config: Mapping[str, Any]) -> dict[str, Any]:
    """TOLD by config.json; None for what it does not say."""
    architectures = config.get("architectures")
    positions = next((config[key] for key in POSITIONS if config.get(key) is not None), None)
    architecture = architectures[0] if isinstance(architectures, list) and architectures else None
    return {"architecture": architecture, "positions": positions, "vocabulary": config.get("vocab_size")}


def check_told(name: str, model: ModelEntry, found: Mapping[str, Any], where: str) -> None:
    """config.yaml's word on a model must be true: lengths were checked with it before anything was downloaded.

    Args:
        found: TOLD as the model's own file says it, which is called ``where``.

    Raises:
        ColdprefixError: names the entry's key and both values.
    """
    for key in TOLD:
        value = found[key]
        if value is not None and value != getattr(model, key):
            raise ColdprefixError(
                f"models.{name}.{key} is {getattr(model, key)!r}, the model's {where} says {value!r}; correct config.yaml"
            )


def check_no_code(name: str, folder: Path) -> None:
    """No file may ask a reader to load classes from the repository, or from another one. Raises ColdprefixError for one that does."""
    for file in sorted(folder.rglob("*.json")):
        try:
            asked = list(_values_of("auto_map", json.loads(file.read_text())))
        except ValueError:
            continue  # whoever needs it will say so
        except RecursionError:
            raise ColdprefixError(f"{file.name} of the model {name} is nested too deeply to be read") from None
        if asked:
            raise ColdprefixError(
                f"{file.name} of the model {name} asks to run code of {str(asked[0])[:200]} (auto_map), which coldprefix does not do; "
                "use a model whose architecture the engines know themselves"
            )


def _values_of(key: str, content: Any) -> Iterator[Any]:
    """What stands under a key anywhere in a JSON document."""
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    if isinstance(content, dict) and key in content:
        yield content[key]
    for value in inner:
        yield from _values_of(key, value)
