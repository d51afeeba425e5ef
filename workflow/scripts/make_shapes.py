"""Write random weights for a model of which only config.json is known. Runs in envs/convert, with nothing from a network.

    python make_shapes.py FOLDER SEED ARCHITECTURE

FOLDER holds config.json. The model is built on torch's meta device, which allocates nothing; names and shapes are those of a checkpoint
of the Hub, which transformers loads as other tensors (experts in one). How each tensor is filled follows from what the model's own class
does to initialise it. Of models of at most REFERENCE_PARAMETERS, reference.json holds what transformers computes from the written files.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, initialization
from transformers.core_model_loading import revert_weight_conversion

from coldprefix.models.checkpoint import DTYPES, Fill, Tensor, write_checkpoint

REFERENCE_PARAMETERS = 300_000_000
PROMPT_TOKENS, SHARED_TOKENS, TOP = 48, 16, 20

# By the end of a parameter's name, over what its class does: that is random, or forgets within a few tokens, or is nearly nothing.
BY_NAME = {
    "A_log": Fill("decay"),
    "dt_bias": Fill("time_steps"),
    "dt_proj.bias": Fill("time_steps"),
    "sinks": Fill("random", 1.0),
}


class Refused(Exception):
    """The model cannot be made; says why in one line."""


def build(folder: Path, architecture: str) -> Any:
    """The model of ``folder``'s config.json on the meta device."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # each class has its own way of failing at a key that is missing or contradicts another
        said = (str(error).strip() or "no reason given").splitlines()[0]
        raise Refused(f"transformers {transformers.__version__} cannot build it: {type(error).__name__}: {said}") from error
    if type(model).__name__ != architecture:
        raise Refused(f"transformers builds {type(model).__name__} from it, not {architecture}; only causal language models can be made")
    return model


def tensors_of(model: Any) -> list[Tensor]:
    """The tensors of the model's checkpoint as the Hub has it, with what each holds."""
    left_out = {*model.all_tied_weights_keys, *(model._keys_to_ignore_on_save or ())}
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in left_out}
    fills = fills_of(model, state)
    shapes = {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, dict(state)).items()}
    # What a tensor of the checkpoint holds is what the tensors hold that it is read into: each kind is turned back alone.
    found: dict[str, Fill] = {}
    for fill in dict.fromkeys(fills.values()):
        own = revert_weight_conversion(model, {name: state[name] for name in state if fills[name] == fill})
        if any(shapes.get(name) != tuple(tensor.shape) or name in found for name, tensor in own.items()):
            raise Refused(f"its tensors are made of parts that are filled differently: {', '.join(list(own)[:3])}")
        found |= dict.fromkeys(own, fill)
    if missing := shapes.keys() - found.keys():
        raise Refused(f"its tensors are made of parts that are filled differently: {', '.join(sorted(missing)[:3])}")
    return [Tensor(name, shapes[name], found[name]) for name in sorted(shapes)]


def fills_of(model: Any, state: dict[str, Any]) -> dict[str, Fill]:
    """What each tensor of the state holds."""
    held = dict([*model.named_buffers(remove_duplicate=False), *model.named_parameters(remove_duplicate=False)])
    for module in model.modules():
        module._is_hf_initialized = False
    with recording() as told:
        model.initialize_weights()
    fills = {}
    for name in state:
        special = next((fill for end, fill in BY_NAME.items() if name == end or name.endswith(f".{end}")), None)
        fill = special or told.get(id(held[name]))
        if fill is None or not math.isfinite(fill.value):
            owner = type(model.get_submodule(name.rpartition(".")[0])).__name__
            raise Refused(f"what {name} of {owner} holds in an untrained model is not known here; see BY_NAME in {Path(__file__).name}")
        fills[name] = fill
    return fills


@contextmanager
def recording() -> Iterator[dict[int, Fill]]:
    """Instead of initialising tensors, transformers' functions write down what they would do, by the tensor's id. NaN: nothing known here."""
    found: dict[int, Fill] = {}

    def fan(tensor: Any, mode: str) -> int:
        fans: tuple[int, int] = torch.nn.init._calculate_fan_in_and_fan_out(tensor)
        return fans[mode == "fan_out"]

    def kaiming(tensor: Any, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", **_: Any) -> Fill:
        return Fill("random", torch.nn.init.calculate_gain(nonlinearity, a) / math.sqrt(fan(tensor, mode)))

    def xavier(tensor: Any, gain: float = 1.0, **_: Any) -> Fill:
        return Fill("random", gain * math.sqrt(2.0 / (fan(tensor, "fan_in") + fan(tensor, "fan_out"))))

    rules: dict[str, Callable[..., Fill]] = {
        "normal_": lambda _t, mean=0.0, std=1.0, **_: Fill("random", std if mean == 0 else math.nan),
        "trunc_normal_": lambda _t, mean=0.0, std=1.0, *_a, **_: Fill("random", std if mean == 0 else math.nan),
        "uniform_": lambda _t, a=0.0, b=1.0, **_: Fill("random", (b - a) / math.sqrt(12.0) if a == -b else math.nan),
        "zeros_": lambda _t: Fill("constant", 0.0),
        "ones_": lambda _t: Fill("constant", 1.0),
        "constant_": lambda _t, val: Fill("constant", float(val)),
        "kaiming_uniform_": kaiming,
        "kaiming_normal_": kaiming,
        "xavier_uniform_": xavier,
        "xavier_normal_": xavier,
    }
    rules |= dict.fromkeys(("copy_", "eye_", "dirac_", "orthogonal_", "sparse_"), lambda _t, *_a, **_: Fill("constant", math.nan))

    def recorder(rule: Callable[..., Fill]) -> Callable[..., Any]:
        def told(tensor: Any, *arguments: Any, **options: Any) -> Any:
            found[id(tensor)] = rule(tensor, *arguments, **options)
            return tensor

        return told

    originals = {name: getattr(initialization, name) for name in rules}
    try:
        for name, rule in rules.items():
            setattr(initialization, name, recorder(rule))
        yield found
    finally:
        for name, original in originals.items():
            setattr(initialization, name, original)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def prompts() -> tuple[list[int], list[int]]:
    """Two prompts of PROMPT_TOKENS that share only their last SHARED_TOKENS."""
    rng = np.random.Generator(np.random.PCG64(PROMPT_TOKENS))
    drawn = rng.permutation(np.arange(300, 50_000))[: 2 * PROMPT_TOKENS - SHARED_TOKENS].tolist()
    own, other, shared = drawn[: PROMPT_TOKENS - SHARED_TOKENS], drawn[PROMPT_TOKENS:], drawn[PROMPT_TOKENS - SHARED_TOKENS : PROMPT_TOKENS]
    return own + shared, other + shared


def reference(folder: Path) -> dict[str, Any]:
    """What the model in ``folder`` makes of two prompts: log-probabilities of the next token, the TOP most likely ones."""
    model, told = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False, output_loading_info=True)
    if wrong := {key: sorted(map(str, told[key]))[:3] for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if told.get(key)}:
        raise Refused(f"transformers does not read back what was written: {wrong}")
    model.eval()

    def top(prompt: list[int]) -> dict[str, float]:
        with torch.inference_mode():
            logits = model(torch.tensor([prompt]), use_cache=False).logits[0, -1].double()
        best = torch.log_softmax(logits, dim=-1).topk(TOP)
        if not torch.isfinite(logits).all():
            raise Refused("its output is not finite: initializer_range is too large for its depth, or a key contradicts another")
        return {str(int(i)): round(float(p), 6) for i, p in zip(best.indices, best.values, strict=True)}

    prompt, other = prompts()
    told = {"transformers": transformers.__version__, "dtype": "float32"}
    return {"prompt": prompt, "top": top(prompt), "other_prompt": other, "other_top": top(other), **told}


def main(folder: Path, seed: int, architecture: str) -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = build(folder, architecture)
    dtype = str(getattr(model.config, "dtype", None) or torch.float32).removeprefix("torch.")
    if dtype not in DTYPES:
        raise Refused(f"its dtype is {dtype}; a stand-in can have {', '.join(DTYPES)}")
    tensors = tensors_of(model)
    write_checkpoint(folder, tensors, dtype, seed)
    ids = {key: value for key in ("bos_token_id", "eos_token_id") if (value := getattr(model.config, key, None)) is not None}
    write_json(folder / "generation_config.json", ids)
    if sum(tensor.size for tensor in tensors) <= REFERENCE_PARAMETERS:
        write_json(folder / "reference.json", reference(folder))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    except Refused as error:
        sys.exit(str(error))
