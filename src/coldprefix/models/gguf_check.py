"""Reads a GGUF file that was converted here back with `gguf` and compares it with the model it was made from.

The format has no checksum and `gguf` no validator, so this checks what could be wrong: the metadata against config.json,
each tensor's shape and type, that the file ends where its last tensor ends, that all values are finite, and for GPT-2 that
each tensor holds the original's values rounded to half precision.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldprefix.errors import ColdprefixError
from coldprefix.models.config_json import read_config
from coldprefix.models.gguf_file import check_end, readable

# GPT-2's tensors: GGUF name, original name, stored transposed (Conv1D is input x output, GGUF's Linear the other way).
GPT2_BLOCK = {
    "attn_norm": ("ln_1", False),
    "attn_qkv": ("attn.c_attn", True),
    "attn_output": ("attn.c_proj", True),
    "ffn_norm": ("ln_2", False),
    "ffn_up": ("mlp.c_fc", True),
    "ffn_down": ("mlp.c_proj", True),
}


def gpt2_names(layers: int) -> dict[str, tuple[str, bool]]:
    """GGUF tensor name: (safetensors name, transposed)."""
    names = {"token_embd.weight": ("wte.weight", False), "position_embd.weight": ("wpe.weight", False)}
    for kind in ("weight", "bias"):
        names[f"output_norm.{kind}"] = (f"ln_f.{kind}", False)
        for i in range(layers):
            for gguf, (original, transposed) in GPT2_BLOCK.items():
                names[f"blk.{i}.{gguf}.{kind}"] = (f"h.{i}.{original}.{kind}", transposed and kind == "weight")
    return names


def check_gguf(path: Path, model: Path) -> dict[str, Any]:
    """Check ``path`` against the safetensors model in the folder ``model``.

    Returns:
        {"architecture", "tensors", "file_type", "context_tokens"} for the record.

    Raises:
        ColdprefixError: names the file, the tensor or key, what it is and what it should be.
    """
    with readable(path):
        return _check(path, model)


def _check(path: Path, model: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    config = read_config(model / "config.json", model.name)
    reader = GGUFReader(path)

    def field(key: str) -> Any:
        if key not in reader.fields:
            raise ColdprefixError(f"{path} lacks the key {key}")
        return reader.fields[key].contents()

    architecture = str(field("general.architecture"))

    def expect(key: str, *names: str, agrees: Callable[[Any, Any], bool] = operator.eq) -> None:
        wanted = next((config[n] for n in names if config.get(n) is not None), None)
        if wanted is not None and not agrees(field(f"{architecture}.{key}"), wanted):
            raise ColdprefixError(f"{path}: {architecture}.{key} is {field(f'{architecture}.{key}')}, config.json says {wanted}")

    # A tail of layers that predict several tokens at once is counted as blocks, and config.json does not count it.
    tail = reader.fields.get(f"{architecture}.nextn_predict_layers")
    tails = (0, 0 if tail is None else tail.contents())
    expect("block_count", "n_layer", "num_hidden_layers", agrees=lambda blocks, layers: blocks - layers in tails)
    # The converter writes more on purpose where nothing limits the positions: 2^20 for Granite 4 and Mamba, HunYuan's 2^18.
    expect("context_length", "n_positions", "max_position_embeddings", agrees=operator.ge)
    expect("embedding_length", "n_embd", "hidden_size")
    expect("attention.head_count", "n_head", "num_attention_heads")
    if field("general.file_type") != 1:
        raise ColdprefixError(f"{path}: general.file_type is {field('general.file_type')}, F16 is 1")
    check_end(path, reader)
    for tensor in reader.tensors:
        if tensor.tensor_type.name not in ("F16", "F32"):
            raise ColdprefixError(f"{path}: {tensor.name} is {tensor.tensor_type.name}, not F16 or F32")
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # numpy looks at billions of values without Python's lock
        for tensor, finite in zip(reader.tensors, pool.map(lambda tensor: np.isfinite(tensor.data).all(), reader.tensors), strict=True):
            if not finite:
                raise ColdprefixError(f"{path}: {tensor.name} holds values that are not finite")
    if architecture == "gpt2":
        _compare_gpt2(path, {tensor.name: tensor for tensor in reader.tensors}, model, config["n_layer"])
    return {
        "architecture": architecture,
        "tensors": len(reader.tensors),
        "file_type": "F16",
        "context_tokens": int(field(f"{architecture}.context_length")),
    }


def _compare_gpt2(path: Path, tensors: dict[str, Any], model: Path, layers: int) -> None:
    from safetensors import SafetensorError, safe_open

    names = gpt2_names(layers)
    # The output projection is tied to the token embeddings; converters may write it out.
    unknown = set(tensors) - set(names) - {"output.weight"}
    missing = set(names) - set(tensors)
    if unknown or missing:
        raise ColdprefixError(f"{path}: tensors missing: {sorted(missing)}; not of GPT-2: {sorted(unknown)}")
    with ExitStack() as stack:
        originals: dict[str, Any] = {}  # by tensor: the file that holds it
        try:
            for file in sorted(model.glob("*.safetensors")):
                opened = stack.enter_context(safe_open(file, framework="numpy"))
                originals |= dict.fromkeys(opened.keys(), opened)
        except (OSError, SafetensorError) as error:
            raise ColdprefixError(f"the weights in {model} cannot be read: {error}") from None
        for name, (original, transposed) in names.items():
            # Some exports, e.g. of fine-tuned models, carry the prefix of the whole model.
            key = next((k for k in (original, f"transformer.{original}") if k in originals), None)
            if key is None:
                raise ColdprefixError(f"the safetensors in {model} hold no {original}, which a GPT-2 has")
            try:
                wanted: NDArray[Any] = originals[key].get_tensor(key)
            except (TypeError, SafetensorError) as error:
                raise ColdprefixError(f"cannot compare {key} of {model} with the GGUF file ({error}): is it F32 or F16?") from None
            wanted = wanted.T if transposed else wanted
            stored: NDArray[Any] = tensors[name].data
            if tuple(stored.shape) != tuple(wanted.shape):
                raise ColdprefixError(f"{path}: {name} has the shape {tuple(stored.shape)}, {original} has {tuple(wanted.shape)}")
            if not np.array_equal(stored, wanted.astype(stored.dtype)):
                raise ColdprefixError(f"{path}: {name} does not hold the values of {original}")
