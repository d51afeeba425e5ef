"""Stand-ins of any architecture: a config.json and a seed, and the weights are random.

transformers says which tensors such a model has, in the environment `convert`; checkpoint.py writes them. config.json itself is never
rewritten: transformers leaves out keys that llama.cpp and vLLM read, and renames others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from coldprefix.engines.llamacpp.build import ensure_source, source_key
from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of
from coldprefix.models.contract import ModelEntry
from coldprefix.models.convert import CONVERTING
from coldprefix.models.hub import RepositoryName, Revision, download
from coldprefix.models.standin import VOCABULARY_FILE, write_tokenizer
from coldprefix.process import supervise
from coldprefix.setup.building import ROOT, say
from coldprefix.setup.environments import ensure_environment
from coldprefix.strict import Strict

FORMAT = 1  # part of the identity of every model of this source; raise it if the bytes must change
GPT2_TOKENS = 50257
KEYS = {"architecture": '"architectures"', "positions": '"max_position_embeddings"', "vocabulary": '"vocab_size"'}
# What config.json may not ask for: weights in another format than the random ones, or code of a repository.
REFUSED = {
    "quantization_config": "asks for quantised weights; take the key out of a copy of the file, since random weights have no scales",
    "auto_map": "asks to run code of a repository, which coldprefix does not do; take the key out if transformers knows the architecture",
}


class HubConfig(Strict):
    """The config.json of a repository of the Hugging Face Hub."""

    repository: RepositoryName
    revision: Revision
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the file.")

    @property
    def files(self) -> dict[str, str | None]:
        """What is downloaded."""
        return {"config.json": self.sha256}


def _read_from_file(schema: dict[str, Any]) -> None:
    """The keys that a file says need not stand in the entry."""
    schema["required"] = [key for key in schema["required"] if key not in KEYS]


class ShapesModel(ModelEntry):
    """A model of any architecture that transformers knows, made from a config.json with deterministic random weights and GPT-2's tokenizer."""

    model_config = ConfigDict(json_schema_extra=_read_from_file)

    source: Literal["shapes"]
    config: str | HubConfig = Field(
        description="A config.json: a file, relative to the repository's root, or {repository, revision, sha256} on the Hub. From a "
        "file architecture, positions and vocabulary are read; only what it does not say (Mamba: positions) is written in the entry."
    )
    seed: int = Field(ge=0)

    random_weights: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def _read(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("config"), str):
            return values
        file = values["config"]
        told = told_by(_content(file), f"config: {file}")
        wrong = [
            f"{key}: {file} says {told[key]!r} ({place}), not {values[key]!r}; leave the key out"
            for key, place in KEYS.items()
            if key in told and values.get(key, told[key]) != told[key]
        ]
        wrong += [
            f"{key}: {file} does not say it ({place}); write it here"
            for key, place in KEYS.items()
            if key not in told and key not in values
        ]
        if wrong:
            raise ValueError("\n".join(wrong))
        return {**told, **values}

    @property
    def original(self) -> str:
        config = sha256_of(_content(self.config)) if isinstance(self.config, str) else self.config.sha256
        decides = {"config": config, "seed": self.seed, "positions": self.positions, "format": FORMAT}
        return sha256_of(json.dumps(decides | {"tokenizer": source_key(), "transformers": transformers_version()}).encode())

    def problems(self) -> Iterator[str]:
        if self.vocabulary < GPT2_TOKENS:
            where = f'"vocab_size" of {self.config}' if isinstance(self.config, str) else "vocabulary"
            yield f"config: {where} is {self.vocabulary}; it must be at least GPT-2's {GPT2_TOKENS}, whose tokenizer is used"

    def fill(self, name: str, folder: Path, earlier: dict[str, Any]) -> dict[str, str]:
        say(f"model {name}: generating {self.architecture} with deterministic random weights")
        if isinstance(self.config, str):
            (folder / "config.json").write_bytes(_content(self.config))
        else:
            download(name, self.config, folder, {})
            try:
                told_by((folder / "config.json").read_bytes(), f"models.{name}.config")
            except ValueError as error:
                raise ColdprefixError(str(error)) from None
        write_tokenizer(folder, ensure_source() / VOCABULARY_FILE, self.positions)
        python = ensure_environment("convert") / "bin" / "python"
        script = ROOT / "workflow" / "scripts" / "make_shapes.py"
        done = supervise.run([python, script, folder, str(self.seed), self.architecture], env=CONVERTING)
        if done.returncode != 0:
            raise ColdprefixError(f"cannot make {name} from its config.json (models.{name}.config): {done.stderr.strip()[-800:]}")
        return {}


def told_by(content: bytes, where: str) -> dict[str, Any]:
    """What a config.json says of architecture, positions and vocabulary: those of the three that stand in it.

    Raises:
        ValueError: it is no config.json, or asks for what a stand-in cannot be; begins with ``where``.
    """
    try:
        told = json.loads(content)
        if not isinstance(told, dict):
            raise TypeError("it holds no JSON object")
        architectures = told.get("architectures")
        if not isinstance(architectures, list) or not architectures:
            raise TypeError('it has no list "architectures", which the engines read')
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{where} is no config.json ({error})") from None
    for key, why in REFUSED.items():
        if told.get(key):
            raise ValueError(f"{where} {why} ({key})")
    positions = told.get("max_position_embeddings", told.get("n_positions"))
    found = {"architecture": architectures[0], "positions": positions, "vocabulary": told.get("vocab_size")}
    return {key: value for key, value in found.items() if value is not None}


def _content(file: str) -> bytes:
    try:
        return (ROOT / file).read_bytes()
    except OSError as error:
        raise ValueError(f"config: cannot read {ROOT / file}: {error.strerror}; paths are relative to the repository's root") from None


@cache
def transformers_version() -> str:
    """The version that names the tensors, as the lock of the environment `convert` has it."""
    lock = ROOT / "envs" / "convert" / "requirements.txt"
    found = re.search(r"^transformers==(\S+)", lock.read_text(), re.M)
    if found is None:
        raise ColdprefixError(f"{lock} holds no transformers, which make_shapes.py needs")
    return found[1]
