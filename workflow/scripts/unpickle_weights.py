"""Read weights that exist as a pickle only and write them as safetensors. Runs in envs/convert.

    python unpickle_weights.py pytorch_model.bin model.safetensors

torch.load with weights_only=True builds tensors and plain containers, and refuses everything else a pickle can ask for.
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import save_file


def main(pickle: str, safetensors: str) -> None:
    state = torch.load(pickle, map_location="cpu", weights_only=True)
    # Tied tensors share memory, which safetensors does not store: each gets its own copy, except OPT's tied output.
    tensors = {name: tensor.contiguous().clone() for name, tensor in state.items() if name != "lm_head.weight"}
    save_file(tensors, safetensors, metadata={"format": "pt"})


if __name__ == "__main__":
    main(*sys.argv[1:])
