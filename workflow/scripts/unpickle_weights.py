"""Read weights that exist as a pickle only and write them as safetensors. Runs in envs/convert.

    python unpickle_weights.py pytorch_model.bin model.safetensors

torch.load with weights_only=True builds tensors and plain containers, and refuses everything else a pickle can ask for.
"""

from __future__ import annotations

import pickle
import re
import sys

import torch
from safetensors.torch import save_file


def main(source: str, target: str) -> None:
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        # torch's message goes on to recommend weights_only=False, which runs what the file asks for.
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        sys.exit(
            f"it asks for {wanted[1]}, which is no tensor and may run code; it was not loaded. Use another model or revision"
            if wanted
            else "it is damaged, or no file of weights; remove the model from huggingface_hub's cache (hf cache rm) and run again"
        )
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        sys.exit("it does not hold one tensor per name, as a model's state does")
    embeddings = [tensor for name, tensor in state.items() if name.endswith("embed_tokens.weight")]
    tied = {name for name in state if name == "lm_head.weight" and any(torch.equal(state[name], e) for e in embeddings)}
    # Tied tensors share memory, which safetensors does not store: each gets its own copy, except OPT's tied output.
    save_file({n: t.contiguous().clone() for n, t in state.items() if n not in tied}, target, metadata={"format": "pt"})


if __name__ == "__main__":
    main(*sys.argv[1:])
