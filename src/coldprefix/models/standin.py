"""Stand-in models: a real architecture with deterministic weights, so that the study runs with no network.

Latency depends on shapes, dtype and lengths, not on the values of the weights, as long as the number of generated tokens
is forced (it is). The weights are uniform, drawn as 16-bit integers from PCG64 and scaled with exact arithmetic, so that
every machine makes the same bytes (raise FORMAT if they must change). The tokenizer is GPT-2's own, which llama.cpp's source carries as a
vocabulary file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from coldprefix.engines.llamacpp.build import ensure_source, source_key
from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of_file
from coldprefix.models.contract import ModelEntry
from coldprefix.setup.building import say

FORMAT = 1  # part of the identity of every stand-in
VOCABULARY_FILE = "vendor/llama.cpp/models/ggml-vocab-gpt-2.gguf"  # in llama-cpp-python's source


class StandinModel(ModelEntry):
    """A real architecture with deterministic random weights, generated here: no network."""

    source: Literal["standin"]
    architecture: Literal["GPT2LMHeadModel", "OPTForCausalLM"]
    layers: int = Field(ge=1)
    width: int = Field(ge=32, description="Embedding width; a multiple of 32 times heads.")
    heads: int = Field(ge=1)
    vocabulary: int = Field(ge=50257, description="At least GPT-2's 50257, whose tokenizer is used.")
    seed: int = Field(ge=0)
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="Expected sha256 of model.safetensors.")

    random_weights: ClassVar[bool] = True

    def also_decides(self) -> str:
        return f" format {FORMAT} {source_key()}"

    def problems(self) -> Iterator[str]:
        if self.width % (32 * self.heads):
            yield f"width: {self.width} is not a multiple of 32 x heads ({32 * self.heads})"

    def fill(self, name: str, folder: Path, earlier: dict[str, Any]) -> dict[str, str]:
        say(f"model {name}: generating {self.architecture} with deterministic random weights")
        shape = self.model_dump(exclude={"source", "sha256", "quantise"})
        generate(folder, ensure_source() / VOCABULARY_FILE, **shape)
        weights = folder / "model.safetensors"
        weights.chmod(0o644)
        sha256 = sha256_of_file(weights)
        if self.sha256 and sha256 != self.sha256:
            raise ColdprefixError(
                f"the stand-in {name} has the sha256 {sha256}, config.yaml says {self.sha256} (models.{name}.sha256). "
                "If you changed its shape or seed, write the new one there, or remove the key."
            )
        return {}


def generate(
    folder: Path, vocabulary_file: Path, architecture: str, layers: int, width: int, heads: int, positions: int, vocabulary: int, seed: int
) -> None:
    """Write a stand-in model into the existing empty ``folder``, in the layout of a Hub repository.

    Args:
        layers, width, heads, positions, vocabulary: the shape; GPT-2 124M is 12, 768, 12, 1024, 50257.

    Raises:
        ColdprefixError: an architecture without a stand-in, or an unreadable vocabulary file.
    """
    import numpy as np
    from safetensors.numpy import save_file

    from coldprefix.models.standin_shapes import DTYPES, SHAPES, config_json, values_of

    if architecture not in SHAPES:
        raise ColdprefixError(f"there is no stand-in for {architecture}; there is one for: {', '.join(SHAPES)}")
    rng = np.random.Generator(np.random.PCG64(seed))
    dtype = DTYPES[architecture]
    tensors = {n: values_of(rng, s, k, dtype) for n, s, k in SHAPES[architecture](layers, width, positions, vocabulary)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    config = config_json(architecture, layers, width, heads, positions, vocabulary)
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", {k: config[k] for k in ("bos_token_id", "eos_token_id")})
    write_tokenizer(folder, vocabulary_file, positions)


def write_tokenizer(folder: Path, vocabulary_file: Path, positions: int) -> None:
    """Write the files of GPT-2's tokenizer into the existing ``folder``; ``positions`` is the model's context, in tokens.

    Raises:
        ColdprefixError: an unreadable vocabulary file.
    """
    from coldprefix.models.standin_shapes import END_OF_TEXT, gpt2_tokenizer

    tokenizer = gpt2_tokenizer(vocabulary_file)
    _write(folder / "tokenizer.json", tokenizer)
    _write(folder / "vocab.json", tokenizer["model"]["vocab"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(tokenizer["model"]["merges"]) + "\n", encoding="utf-8")
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "GPT2Tokenizer",
            "model_max_length": positions,
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "unk_token": END_OF_TEXT,
            "add_prefix_space": False,
        },
    )


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=None, sort_keys=True) + "\n", encoding="utf-8")
