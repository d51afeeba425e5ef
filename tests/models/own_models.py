"""Small models of somebody's own: GGUF files and folders with safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
from safetensors.numpy import save_file

TOKENS = 300
POSITIONS = 512


def write_gguf(path: Path, *, architecture: str = "llama", tensors: int = 3, per_part: int = 0, **fields: int) -> Path:
    """A Q8_0 file with a vocabulary of TOKENS, in parts of ``per_part`` tensors; ``fields`` are its architecture's. Returns its first part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, architecture, split_max_tensors=per_part)
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    for key, value in {"context_length": POSITIONS, **fields}.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_token_list([f"t{i}" for i in range(TOKENS)])
    for number in range(tensors):
        writer.add_tensor(f"blk.{number}.weight", np.full((2, 34), number, dtype=np.uint8), raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path if path.exists() else min(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))


def write_folder(folder: Path, parts: int = 1, **config: Any) -> Path:
    """Safetensors in so many files with their index, and a config.json; None takes a key away."""
    folder.mkdir(parents=True)
    names = ["model.safetensors"] if parts == 1 else [f"model-{i:05d}-of-{parts:05d}.safetensors" for i in range(1, parts + 1)]
    for number, name in enumerate(names):
        save_file({f"h.{number}": np.full(4, number, dtype=np.float32)}, folder / name)
    if parts > 1:
        index = {"weight_map": {f"h.{number}": name for number, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    told = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": POSITIONS, "vocab_size": TOKENS, **config}
    (folder / "config.json").write_text(json.dumps({key: value for key, value in told.items() if value is not None}))
    (folder / "README.md").write_text("about it")
    return folder
