"""The tensors, config.json and tokenizer of stand-in models: GPT-2 and OPT, exactly as their originals have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coldprefix.errors import ColdprefixError

END_OF_TEXT = "<|endoftext|>"

# Standard deviation of the initial weights of GPT-2 and OPT (init_std, initializer_range in their config.json).
WEIGHT_STD = 0.02


def gpt2_shapes(layers: int, width: int, positions: int, vocabulary: int) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """(name, shape, kind) of every tensor of openai-community/gpt2; kind is "weight", "bias" or "norm".

    The projections are Conv1D layers: (input, output), the transpose of a Linear layer's weight.
    """
    yield "wte.weight", (vocabulary, width), "weight"
    yield "wpe.weight", (positions, width), "weight"
    for i in range(layers):
        for norm in ("ln_1", "ln_2"):
            yield f"h.{i}.{norm}.weight", (width,), "norm"
            yield f"h.{i}.{norm}.bias", (width,), "bias"
        projections = [("attn.c_attn", width, 3 * width), ("attn.c_proj", width, width)]
        projections += [("mlp.c_fc", width, 4 * width), ("mlp.c_proj", 4 * width, width)]
        for name, inputs, outputs in projections:
            yield f"h.{i}.{name}.weight", (inputs, outputs), "weight"
            yield f"h.{i}.{name}.bias", (outputs,), "bias"
    yield "ln_f.weight", (width,), "norm"
    yield "ln_f.bias", (width,), "bias"


def opt_shapes(layers: int, width: int, positions: int, vocabulary: int) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """(name, shape, kind) of every tensor of facebook/opt-125m. OPT's position table has two extra rows."""
    prefix = "model.decoder"
    yield f"{prefix}.embed_tokens.weight", (vocabulary, width), "weight"
    yield f"{prefix}.embed_positions.weight", (positions + 2, width), "weight"
    for i in range(layers):
        layer = f"{prefix}.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield f"{layer}.self_attn.{name}.weight", (width, width), "weight"
            yield f"{layer}.self_attn.{name}.bias", (width,), "bias"
        for name, inputs, outputs in (("fc1", width, 4 * width), ("fc2", 4 * width, width)):
            yield f"{layer}.{name}.weight", (outputs, inputs), "weight"
            yield f"{layer}.{name}.bias", (outputs,), "bias"
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            yield f"{layer}.{norm}.weight", (width,), "norm"
            yield f"{layer}.{norm}.bias", (width,), "bias"
    yield f"{prefix}.final_layer_norm.weight", (width,), "norm"
    yield f"{prefix}.final_layer_norm.bias", (width,), "bias"


SHAPES = {"GPT2LMHeadModel": gpt2_shapes, "OPTForCausalLM": opt_shapes}
DTYPES = {"GPT2LMHeadModel": np.float32, "OPTForCausalLM": np.float16}  # as the originals on the Hub


def values_of(rng: np.random.Generator, shape: tuple[int, ...], kind: str, dtype: Any) -> NDArray[Any]:
    """One tensor. A uniform variable on (-a, a) has the standard deviation a / sqrt(3)."""
    if kind == "norm":
        return np.ones(shape, dtype)
    if kind == "bias":
        return np.zeros(shape, dtype)
    integers = rng.integers(0, 2**16, size=shape, dtype=np.uint16)
    step = np.float32(2 * WEIGHT_STD * np.sqrt(3.0) / 2**16)
    return ((integers.astype(np.float32) - np.float32(2**15) + np.float32(0.5)) * step).astype(dtype)


def config_json(architecture: str, layers: int, width: int, heads: int, positions: int, vocabulary: int) -> dict[str, Any]:
    """config.json with the keys that transformers, vLLM and llama.cpp's converter read."""
    if architecture == "GPT2LMHeadModel":
        return {
            "architectures": [architecture],
            "model_type": "gpt2",
            "activation_function": "gelu_new",
            "n_layer": layers,
            "n_embd": width,
            "n_head": heads,
            "n_positions": positions,
            "n_ctx": positions,  # transformers 5 dropped it, llama.cpp's converter wants it
            "n_inner": None,
            "vocab_size": vocabulary,
            "layer_norm_epsilon": 1e-5,
            "initializer_range": WEIGHT_STD,
            "bos_token_id": 50256,
            "eos_token_id": 50256,
            "torch_dtype": "float32",
        }
    return {
        "architectures": [architecture],
        "model_type": "opt",
        "activation_function": "relu",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "word_embed_proj_dim": width,
        "ffn_dim": 4 * width,
        "num_attention_heads": heads,
        "max_position_embeddings": positions,
        "do_layer_norm_before": True,
        "vocab_size": vocabulary,
        "init_std": WEIGHT_STD,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "torch_dtype": "float16",
    }


def gpt2_tokenizer(vocabulary_file: Path) -> dict[str, Any]:
    """GPT-2's tokenizer.json, rebuilt from llama.cpp's vocabulary file.

    The byte-level pre-tokenizer is the one of openai-community/gpt2, so that llama.cpp's converter recognises it.
    """
    from gguf import GGUFReader

    try:
        fields = GGUFReader(vocabulary_file).fields
        tokens: list[str] = fields["tokenizer.ggml.tokens"].contents()
        merges: list[str] = fields["tokenizer.ggml.merges"].contents()
    except (OSError, ValueError, KeyError) as error:
        raise ColdprefixError(f"cannot read GPT-2's vocabulary from {vocabulary_file}: {error}") from error
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    special = {"id": tokens.index(END_OF_TEXT), "content": END_OF_TEXT, "special": True, "normalized": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**special, "single_word": False, "lstrip": False, "rstrip": False}],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": {**byte_level, "trim_offsets": False},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }
