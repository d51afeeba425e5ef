"""Makes a model exist in models/: from the Hub or generated, as safetensors, and as GGUF F16 for llama.cpp."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coldprefix import environments, hub, standin, supervise
from coldprefix.config import HubModel, Model, StandinModel
from coldprefix.errors import ColdprefixError
from coldprefix.files import write_json
from coldprefix.gguf_check import check_gguf
from coldprefix.job import model_identity
from coldprefix.server import clean_environment

RECORD = "coldprefix.json"  # inside the model's folder; written last
# Programs that read a model get no token, and nothing from a network: llama.cpp's converter lets transformers run code of the repository
# that a model names, for some architectures.
CONVERTING = clean_environment({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"})


def model_folder(models: Path, name: str) -> Path:
    return models / name


def gguf_file(models: Path, name: str) -> Path:
    return models / f"{name}-F16.gguf"


def origin_of(model: Model) -> str | None:
    """repository@revision of a model of the Hub."""
    return f"{model.repository}@{model.revision}" if isinstance(model, HubModel) else None


def _is_complete(folder: Path, identity: str) -> bool:
    try:
        record = json.loads((folder / RECORD).read_text())
        sizes = {file: (folder / file).stat().st_size for file in record["files"]}
        return bool(record["identity"] == identity and all(sizes[f] == record["files"][f]["bytes"] for f in sizes))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def ensure_model(name: str, model: Model, models: Path, earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    """Make ``models/<name>`` exist and return its record: name, source, identity, files
    ({name: {bytes, sha256}}), pickles ({name: sha256} of weights that came as one) and origin (see origin_of).

    Args:
        earlier: the record of an earlier run; a new download from the same origin must repeat its checksums.

    Raises:
        ColdprefixError: see hub.download and standin.generate; a stand-in whose bytes are not the expected ones.
    """
    folder = model_folder(models, name)
    identity = model_identity(model)
    if not _is_complete(folder, identity):
        partial = models / f".{name}.part"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            same = earlier is not None and earlier.get("origin") == origin_of(model)
            pickles = _fill(name, model, partial, earlier if earlier and same else {})
            files = {p.relative_to(partial).as_posix(): p for p in sorted(partial.rglob("*")) if p.is_file()}
            record = {
                "name": name,
                "source": model.source,
                "identity": identity,
                "origin": origin_of(model),
                "files": {f: {"bytes": p.stat().st_size, "sha256": hub.sha256_of_file(p)} for f, p in files.items()},
                "pickles": pickles,
            }
            _check_config_json(name, model, partial)
            _check_no_code(name, partial)
            write_json(partial / RECORD, record)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    result: dict[str, Any] = json.loads((folder / RECORD).read_text())
    return result


def _fill(name: str, model: Model, folder: Path, earlier: dict[str, Any]) -> dict[str, str]:
    """Download or generate the files of a model. Returns the sha256 of pickles that were turned into safetensors."""
    if isinstance(model, HubModel):
        environments.say(f"model {name}: {model.repository} at {model.revision[:12]}")
        recorded = {file: entry["sha256"] for file, entry in earlier.get("files", {}).items()} | earlier.get("pickles", {})
        found = hub.download(name, model, folder, recorded)
        for file in (f for f, expected in model.files.items() if expected is None and f not in recorded):
            environments.say(f"model {name}: no checksum in config.yaml for {file}; this download's is {found[file]}, recorded")
        if model.convert_pickle:
            _unpickle(name, folder / model.convert_pickle, folder / "model.safetensors")
            return {model.convert_pickle: found[model.convert_pickle]}
        return {}
    assert isinstance(model, StandinModel)
    environments.say(f"model {name}: generating {model.architecture} with deterministic random weights")
    shape = model.model_dump(exclude={"source", "sha256"})
    standin.generate(folder, environments.ensure_llamacpp_source() / "vendor" / "llama.cpp" / standin.VOCABULARY_FILE, **shape)
    (folder / "model.safetensors").chmod(0o644)
    sha256 = hub.sha256_of_file(folder / "model.safetensors")
    if model.sha256 and sha256 != model.sha256:
        raise ColdprefixError(
            f"the stand-in {name} has the sha256 {sha256}, config.yaml says {model.sha256} (models.{name}.sha256). "
            "If you changed its shape or seed, write the new one there, or remove the key."
        )
    return {}


def _unpickle(name: str, pickle: Path, safetensors: Path) -> None:
    """Turn pickled weights into safetensors, in the environment that has torch; the pickle is removed."""
    python = environments.ensure_environment("convert") / "bin" / "python"
    script = environments.ROOT / "workflow" / "scripts" / "unpickle_weights.py"
    done = supervise.run([python, script, pickle, safetensors], env=CONVERTING)
    if done.returncode != 0:
        raise ColdprefixError(f"cannot convert {pickle.name} (models.{name}.convert_pickle): {done.stderr.strip()[-800:]}")
    pickle.unlink()


def _check_config_json(name: str, model: Model, folder: Path) -> None:
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


def ensure_gguf(name: str, model: Model, models: Path) -> dict[str, Any]:
    """Make ``models/<name>-F16.gguf`` exist, converted by the llama.cpp that runs it, and return its record.

    Raises:
        ColdprefixError: the converter refused the model, or the file is not what the model says (see gguf_check).
    """
    identity = ensure_model(name, model, models)["identity"]
    source = environments.ensure_llamacpp_source() / "vendor" / "llama.cpp"
    key = environments.sha256_of(f"{identity} {environments.llamacpp_source_key()}".encode())
    target = gguf_file(models, name)
    note = target.with_suffix(".json")
    try:
        record: dict[str, Any] = json.loads(note.read_text())
        if record["key"] == key and target.stat().st_size == record["bytes"]:
            return record
    except (OSError, ValueError, KeyError, TypeError):
        pass
    environments.say(f"model {name}: converting to GGUF F16")
    python = environments.ensure_environment("convert") / "bin" / "python"
    partial = models / f".{name}-F16.gguf.part"
    log = models / f"{name}-F16.log"
    folder = model_folder(models, name)
    command: list[str | Path] = [python, source / "convert_hf_to_gguf.py", folder, "--outtype", "f16", "--outfile", partial]
    try:
        with open(log, "w") as output:
            code = supervise.run(command, stdout=output, stderr=subprocess.STDOUT, env=CONVERTING).returncode
        if code != 0:
            end = "\n".join(log.read_text(errors="replace").replace("\r", "\n").splitlines()[-5:])
            raise ColdprefixError(f"llama.cpp's converter cannot convert {name} (exit code {code}):\n{end}\nThe whole log: {log}")
        summary = check_gguf(partial, folder)
        record = {"name": name, "key": key, "bytes": partial.stat().st_size, "sha256": hub.sha256_of_file(partial), **summary}
        partial.replace(target)
        write_json(note, record)
    finally:
        partial.unlink(missing_ok=True)
    return record
