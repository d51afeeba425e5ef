"""Makes a model exist: as safetensors, from its source, and as GGUF for llama.cpp, converted and quantised if it is asked for.

In models/ are a folder for each model, with its record, and the GGUF files that were made. A model that lies elsewhere on this machine is
used there; of it, only the record is in models/.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from coldprefix.engines.contract import RECORD, weights_of
from coldprefix.engines.llamacpp.build import source_key
from coldprefix.errors import ColdprefixError
from coldprefix.files import left_behind, partial_of, sha256_of, sha256_of_file, whole, write_json
from coldprefix.models.config_json import check_no_code, check_told, read_config, told
from coldprefix.models.contract import ModelEntry
from coldprefix.models.convert import convert, quantise
from coldprefix.models.gguf import header_at
from coldprefix.models.gguf_check import check_gguf
from coldprefix.models.gguf_file import Header, read_header, read_whole
from coldprefix.models.local import LocalModel
from coldprefix.setup.building import locked, say


def ensure_weights(
    name: str, model: ModelEntry, models: Path, kind: str, earlier: dict[str, Any] | None = None, accelerator: str = "cpu"
) -> dict[str, Any]:
    """Make what `weights_of` names exist and return its record. Raises ColdprefixError: see below."""
    record = ensure_model(name, model, models, earlier)
    return ensure_gguf(name, model, models, accelerator) if kind == "gguf" else record


def ensure_model(name: str, model: ModelEntry, models: Path, earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    """Make ``models/<name>`` exist and return its record: name, source, identity, files
    ({name: {bytes, sha256}}), pickles ({name: sha256} of weights that came as one), origin (see ModelEntry) and weights (see `weights_of`).

    Args:
        earlier: the record of an earlier run; a new download from the same origin must repeat its checksums.

    Raises:
        ColdprefixError: see the `fill` of the model's source; files that are not what config.yaml says, or ask for code to be run.
    """
    folder = models / name
    weights = _places(name, model)
    if (record := _known(folder, model)) is None:
        with locked(models / f".{name}.lock"):
            if (record := _known(folder, model)) is None:
                record = _make(name, model, folder, earlier if earlier and earlier.get("origin") == model.origin else {})
    if record.get("weights") != weights:  # another type is asked for, or a folder of the user's was moved
        record = {**record, "weights": weights}
        write_json(folder / RECORD, record)
    return record


def ensure_gguf(name: str, model: ModelEntry, models: Path, accelerator: str = "cpu") -> dict[str, Any]:
    """Make the model's GGUF file exist and return its record: name, bytes and sha256 (of all parts together), architecture, tensors, file_type,
    context_tokens. What is made lies in models/: converted by the llama.cpp that runs it, to F16, and from that quantised.

    Args:
        accelerator: "cpu" or "cuda": whose build of llama.cpp quantises.

    Raises:
        ColdprefixError: the converter or llama-quantize refused the model, or the file is not what the model says (gguf_check.py).
    """
    record = ensure_model(name, model, models)
    if model.gguf:
        first = weights_of(models, name, "gguf")
        parts = [entry for file, entry in record["files"].items() if file.endswith(".gguf")]
        sha256 = parts[0]["sha256"] if len(parts) == 1 else sha256_of(" ".join(part["sha256"] for part in parts).encode())
        return {"name": name, "bytes": sum(part["bytes"] for part in parts), "sha256": sha256, **_summary(header_at(first))}
    original = models / f"{name}-F16.gguf"

    def converted(partial: Path, log: Path) -> dict[str, Any]:
        say(f"model {name}: converting to GGUF F16")
        folder = weights_of(models, name, "safetensors")
        convert(name, folder, partial, log)
        return check_gguf(partial, folder)

    f16 = _made(name, original, sha256_of(f"{model.original} {source_key()}".encode()), converted)
    kind = model.quantise
    if kind is None:
        return f16

    def quantised(partial: Path, log: Path) -> dict[str, Any]:
        say(f"model {name}: quantising to {kind}")
        quantise(name, original, str(kind), partial, log, accelerator)
        return _check_quantised(partial, str(kind), f16)

    return _made(name, weights_of(models, name, "gguf"), sha256_of(f"{model.identity} {source_key()}".encode()), quantised)


def _places(name: str, model: ModelEntry) -> dict[str, str]:
    """By kind: where an engine finds it, as seen from models/. What the user named is absolute."""
    if model.gguf:
        return {"gguf": str(Path(name) / model.gguf)}
    return {"safetensors": str(model.place or name), "gguf": f"{name}-{model.gguf_type}.gguf"}


def _made(name: str, target: Path, key: str, make: Callable[[Path, Path], dict[str, Any]]) -> dict[str, Any]:
    """The record of a GGUF file, made by ``make(file, log)`` unless it is there."""
    if (record := _known_gguf(target, key)) is None:
        with locked(target.with_name(f".{name}.lock")):
            if (record := _known_gguf(target, key)) is None:
                with whole(target) as partial:
                    summary = make(partial, target.with_suffix(".log"))
                    record = {"name": name, "key": key, "bytes": partial.stat().st_size, "sha256": sha256_of_file(partial), **summary}
                write_json(target.with_suffix(".json"), record)
    return record


def _known_gguf(target: Path, key: str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(target.with_suffix(".json").read_text())
        return record if record["key"] == key and target.stat().st_size == record["bytes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _summary(header: Header) -> dict[str, Any]:
    return {key: header[key] for key in ("architecture", "tensors", "file_type")} | {"context_tokens": header["positions"]}


def _check_quantised(path: Path, kind: str, original: dict[str, Any]) -> dict[str, Any]:
    found = _summary(read_header(path))
    wanted = {**{key: original[key] for key in found}, "file_type": kind}
    if found != wanted:
        raise ColdprefixError(f"llama-quantize made {found}, not {wanted}: has its build been damaged? Delete it and run snakemake again")
    return found


def _known(folder: Path, model: ModelEntry) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text())
        sizes = {file: (folder / file).stat().st_size for file in record["files"]} if model.place is None else {}
        complete = record["identity"] == model.original and all(size == record["files"][file]["bytes"] for file, size in sizes.items())
        return record if complete else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make(name: str, model: ModelEntry, folder: Path, earlier: dict[str, Any]) -> dict[str, Any]:
    if model.place and model.place.resolve().is_relative_to(folder.resolve()):
        raise ColdprefixError(
            f"models.{name}.path is {folder}, where coldprefix keeps its own files of a model of that name; name the model otherwise"
        )
    partial = partial_of(folder)
    for left in [partial, *left_behind(folder)]:
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        pickles = model.fill(name, partial, earlier)
        _check(name, model, partial)
        record = {
            "name": name,
            "source": model.source,
            "identity": model.original,
            "origin": model.origin,
            "files": _listed(model, partial),
            "pickles": pickles,
            "weights": _places(name, model),
        }
        write_json(partial / RECORD, record)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return record


def _listed(model: ModelEntry, folder: Path) -> dict[str, dict[str, Any]]:
    if isinstance(model, LocalModel):
        hashes = zip(model.files(), model.content().values(), strict=True)
        return {file.name: {"bytes": file.stat().st_size, "sha256": sha256} for file, sha256 in hashes}
    files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        sums = dict(zip(files, pool.map(sha256_of_file, files.values()), strict=True))
    return {f: {"bytes": p.stat().st_size, "sha256": sums[f]} for f, p in files.items()}


def _check(name: str, model: ModelEntry, folder: Path) -> None:
    """What the model's own files say must be what its entry says, and they must ask for no code."""
    if model.gguf:
        check_told(name, model, read_whole(folder / model.gguf), "GGUF file")
    else:
        place = model.place or folder
        check_told(name, model, told(read_config(place / "config.json", name)), "config.json")
        check_no_code(name, place)
