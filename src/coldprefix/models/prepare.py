"""Makes a model exist in models/: as safetensors, from its source, and as GGUF F16 for llama.cpp."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coldprefix.engines.contract import weights_of
from coldprefix.engines.llamacpp.build import source_key
from coldprefix.errors import ColdprefixError
from coldprefix.files import left_behind, partial_of, sha256_of, sha256_of_file, whole, write_json
from coldprefix.models.contract import ModelEntry
from coldprefix.models.convert import convert
from coldprefix.models.gguf import check_gguf
from coldprefix.setup.building import locked, say

RECORD = "coldprefix.json"  # inside the model's folder; written last


def ensure_weights(name: str, model: ModelEntry, models: Path, kind: str, earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    """Make what `weights_of` names exist and return its record. Raises ColdprefixError: see below."""
    record = ensure_model(name, model, models, earlier)
    return ensure_gguf(name, model, models) if kind == "gguf" else record


def ensure_model(name: str, model: ModelEntry, models: Path, earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    """Make ``models/<name>`` exist and return its record: name, source, identity, files
    ({name: {bytes, sha256}}), pickles ({name: sha256} of weights that came as one) and origin (see ModelEntry).

    Args:
        earlier: the record of an earlier run; a new download from the same origin must repeat its checksums.

    Raises:
        ColdprefixError: see the `fill` of the model's source; files that are not what config.yaml says, or ask for code to be run.
    """
    folder = weights_of(models, name, "safetensors")
    if not _is_complete(folder, model.identity):
        with locked(models / f".{name}.lock"):
            if not _is_complete(folder, model.identity):
                _make(name, model, folder, earlier if earlier and earlier.get("origin") == model.origin else {})
    result: dict[str, Any] = json.loads((folder / RECORD).read_text())
    return result


def ensure_gguf(name: str, model: ModelEntry, models: Path) -> dict[str, Any]:
    """Make ``models/<name>-F16.gguf`` exist, converted by the llama.cpp that runs it, and return its record.

    Raises:
        ColdprefixError: the converter refused the model, or the file is not what the model says (gguf.py).
    """
    identity = ensure_model(name, model, models)["identity"]
    key = sha256_of(f"{identity} {source_key()}".encode())
    target = weights_of(models, name, "gguf")
    if (record := _known_gguf(target, key)) is not None:
        return record
    with locked(models / f".{name}.lock"):
        if (record := _known_gguf(target, key)) is not None:
            return record
        say(f"model {name}: converting to GGUF F16")
        folder = weights_of(models, name, "safetensors")
        with whole(target) as partial:
            convert(name, folder, partial, target.with_suffix(".log"))
            summary = check_gguf(partial, folder)
            record = {"name": name, "key": key, "bytes": partial.stat().st_size, "sha256": sha256_of_file(partial), **summary}
        write_json(target.with_suffix(".json"), record)
    return record


def _known_gguf(target: Path, key: str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(target.with_suffix(".json").read_text())
        return record if record["key"] == key and target.stat().st_size == record["bytes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_complete(folder: Path, identity: str) -> bool:
    try:
        record = json.loads((folder / RECORD).read_text())
        sizes = {file: (folder / file).stat().st_size for file in record["files"]}
        return bool(record["identity"] == identity and all(sizes[f] == record["files"][f]["bytes"] for f in sizes))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _make(name: str, model: ModelEntry, folder: Path, earlier: dict[str, Any]) -> None:
    partial = partial_of(folder)
    for left in [partial, *left_behind(folder)]:
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        pickles = model.fill(name, partial, earlier)
        files = {p.relative_to(partial).as_posix(): p for p in sorted(partial.rglob("*")) if p.is_file()}
        record = {
            "name": name,
            "source": model.source,
            "identity": model.identity,
            "origin": model.origin,
            "files": {f: {"bytes": p.stat().st_size, "sha256": sha256_of_file(p)} for f, p in files.items()},
            "pickles": pickles,
        }
        _check_config_json(name, model, partial)
        _check_no_code(name, partial)
        write_json(partial / RECORD, record)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_config_json(name: str, model: ModelEntry, folder: Path) -> None:
    """config.yaml's word on a model must be true: lengths were checked with it before anything was downloaded."""
    try:
        told = dict(json.loads((folder / "config.json").read_text()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ColdprefixError(f"config.json of the model {name} holds no JSON object ({error}): is it the right file?") from None
    positions = told.get("max_position_embeddings", told.get("n_positions"))
    real = {"architecture": (told.get("architectures") or [None])[0], "positions": positions, "vocabulary": told.get("vocab_size")}
    for key, value in real.items():
        if value is not None and value != getattr(model, key):
            raise ColdprefixError(
                f"models.{name}.{key} is {getattr(model, key)!r}, the model's config.json says {value!r}; correct config.yaml"
            )


def _check_no_code(name: str, folder: Path) -> None:
    """No file may ask a reader to load classes from the repository, or from another one."""
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
