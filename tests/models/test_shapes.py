"""Stand-ins from a config.json: the same bytes everywhere, the tensors that transformers itself would save, and one message for a bad file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, SAME_PATH, Values, with_values
from hub_server import HubServer, Repository
from safetensors.numpy import load_file

from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of, sha256_of_file
from coldprefix.models import checkpoint, prepare, shapes
from coldprefix.models.checkpoint import Fill, Tensor, values_of, write_checkpoint
from coldprefix.models.convert import CONVERTING
from coldprefix.models.shapes import ShapesModel
from coldprefix.setup.environments import ensure_environment
from coldprefix.study.checks import parse
from coldprefix.study.config import Config

CONFIGS = ROOT / "src" / "coldprefix" / "models" / "configs"
TENSORS = [
    Tensor("embed.weight", (50, 7), Fill("random", 0.02)),
    Tensor("norm.weight", (7,), Fill("constant", 1.0)),
    Tensor("bias", (7,), Fill("constant", 0.0)),
    Tensor("A_log", (2, 4), Fill("decay")),
    Tensor("dt_bias", (4,), Fill("time_steps")),
]


def all_of(tensor: Tensor, seed: int = 1) -> Any:
    return np.concatenate(list(values_of(tensor, seed)))


# --- the files ------------------------------------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_bytes_on_every_machine(tmp_path: Path) -> None:
    found = {}
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        write_checkpoint(tmp_path / name, TENSORS, "bfloat16", seed)
        found[name] = sha256_of_file(tmp_path / name / "model-00001-of-00001.safetensors")
    assert found["one"] == found["again"] == "259b3788c26d19ba78c73b509e210bec31d1557e630a0d80e872be65658467ff"
    assert found["other"] != found["one"]


def test_what_is_written_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In shards of a size that is not passed, but by a tensor that is larger alone."""
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 64)
    write_checkpoint(tmp_path, TENSORS, "float32", 1)
    index = json.loads((tmp_path / checkpoint.INDEX).read_text())
    assert index["metadata"]["total_size"] == 4 * (350 + 7 + 7 + 8 + 4)
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert shards == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for tensor in TENSORS:
        read = load_file(tmp_path / index["weight_map"][tensor.name])[tensor.name]
        assert read.shape == tensor.shape and np.array_equal(read.ravel(), all_of(tensor))
    assert [len(load_file(tmp_path / shard)) for shard in shards] == [1, 2, 2]


def test_a_tensor_is_spread_as_asked_and_follows_from_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = Tensor("a.weight", (300, 100), Fill("random", 0.08))
    values = all_of(tensor)
    assert values.std() == pytest.approx(0.08, rel=0.02) and abs(values.mean()) < 2e-3
    assert not np.array_equal(values, all_of(tensor._replace(name="b.weight")))
    monkeypatch.setattr(checkpoint, "CHUNK", 1024)
    assert np.array_equal(values, all_of(tensor))


def test_a_state_space_s_decays_and_time_steps_are_those_of_an_untrained_one() -> None:
    assert all_of(TENSORS[3]) == pytest.approx(np.log([1, 2, 3, 4, 1, 2, 3, 4]))
    steps = np.log1p(np.exp(all_of(Tensor("dt_bias", (100,), Fill("time_steps")))))
    assert steps.min() == pytest.approx(0.001, rel=0.05) and steps.max() == pytest.approx(0.1, rel=0.05)


def test_bfloat16_is_rounded_to_nearest_and_ties_to_even() -> None:
    step = 2.0**-7  # of a bfloat16 from 1 to 2
    exact = np.array([1, 1 + step / 2, 1 + step * 0.51, 1 + 1.5 * step, -1 - step * 0.49, 0], np.float32)
    bits = checkpoint.DTYPES["bfloat16"].rounded(exact).astype(np.uint32) << 16
    assert bits.view(np.float32).tolist() == [1, 1, 1 + step, 1 + 2 * step, -1, 0]


# --- the entries ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def config_json(tmp_path: Path) -> Path:
    """The tiny Llama's, to spoil."""
    path = tmp_path / "told.json"
    path.write_bytes((CONFIGS / "llama-tiny.json").read_bytes())
    return path


def entry(path: Path, **more: Any) -> Values:
    return {"models.x": {"source": "shapes", "config": str(path), "seed": 1, **more}}


def test_architecture_positions_and_vocabulary_are_read_from_the_file(config: Config) -> None:
    found = {name: (m.architecture, m.positions, m.vocabulary) for name, m in config.models.items() if m.source == "shapes"}
    assert found["llama-tiny"] == ("LlamaForCausalLM", 8192, 50257)
    assert found["llama-3-8b-standin"] == ("LlamaForCausalLM", 8192, 128256)
    assert found["mamba2-tiny"] == ("Mamba2ForCausalLM", 8192, 50272)
    assert {f"{path.stem}" for path in CONFIGS.glob("*.json")} == {name.removesuffix("-standin") for name in found}


def test_an_entry_survives_the_plan(config: Config) -> None:
    """Which the programs read."""
    model = config.models["mamba2-tiny"]
    again = ShapesModel.model_validate(json.loads(model.model_dump_json()))
    assert again == model and again.identity == model.identity


def test_the_identity_is_of_the_content_and_the_seed(values: Values, config_json: Path) -> None:
    def identity(**more: Any) -> str:
        return parse(with_values(values, entry(config_json, **more))).models["x"].identity

    first = identity()
    assert parse(values).models["llama-tiny"].identity == first, "the same content in another file"
    assert identity(seed=2) != first
    assert identity(quantise="Q4_K_M") not in (first, identity(quantise="Q8_0"))
    config_json.write_text(config_json.read_text().replace("8192", "4096"))
    assert identity() != first


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("vocab_size", 32000, r"models\.x\.config: \"vocab_size\" of .* is 32000; it must be at least GPT-2's 50257"),
        ("max_position_embeddings", None, r"models\.x\.positions: .* does not say it \(\"max_position_embeddings\"\); write it here"),
        ("architectures", None, r"models\.x\.config: .* is no config.json \(it has no list \"architectures\""),
        ("quantization_config", {"quant_method": "mxfp4"}, r"models\.x\.config: .* asks for quantised weights"),
        ("auto_map", {"AutoModel": "x.y"}, r"models\.x\.config: .* asks to run code of a repository"),
    ],
)
def test_a_config_json_that_cannot_be_made_is_refused(values: Values, config_json: Path, key: str, value: Any, message: str) -> None:
    told = json.loads(config_json.read_text()) | {key: value}
    config_json.write_text(json.dumps({k: v for k, v in told.items() if v is not None}))
    with pytest.raises(ColdprefixError, match=message) as caught:
        parse(with_values(values, entry(config_json)))
    assert len(str(caught.value).splitlines()) == 2


def test_a_file_that_is_none_or_contradicts_the_entry_is_refused(values: Values, config_json: Path) -> None:
    with pytest.raises(ColdprefixError, match=r"models\.x\.positions: .* says 8192 .*, not 1024; leave the key out"):
        parse(with_values(values, entry(config_json, positions=1024)))
    config_json.write_text("{]")
    with pytest.raises(ColdprefixError, match=r"models\.x\.config: .*told\.json is no config\.json"):
        parse(with_values(values, entry(config_json)))
    with pytest.raises(ColdprefixError, match=r"models\.x\.config: cannot read .*nowhere\.json: No such file"):
        parse(with_values(values, entry(ROOT / "nowhere.json")))


def test_a_config_json_of_the_hub_needs_its_checksum_and_what_it_says(values: Values) -> None:
    hub = {"repository": "a/b", "revision": "0" * 40}
    with pytest.raises(ColdprefixError) as caught:
        parse(with_values(values, {"models.x": {"source": "shapes", "config": hub, "seed": 1}}))
    missing = {line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]}
    assert {"models.x.architecture", "models.x.positions", "models.x.vocabulary", "models.x.config.sha256"} <= missing


def test_the_hub_s_config_json_is_downloaded_and_its_checksum_compared(tmp_path: Path) -> None:
    content = (CONFIGS / "llama-tiny.json").read_bytes()
    program = (
        f"{SAME_PATH}from pathlib import Path\nfrom coldprefix.models.hub import download\nfrom coldprefix.models.shapes import HubConfig\n"
        "config = HubConfig(repository='a/b', revision='5' * 40, sha256=sys.argv[1])\ndownload('x', config, Path(sys.argv[2]), {})"
    )
    with HubServer({"a/b": Repository({"5" * 40: {"config.json": content}})}) as hub:
        env = {"PATH": os.environ["PATH"], "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        right, wrong = (
            subprocess.run([sys.executable, "-c", program, sha256, tmp_path], env=env, capture_output=True, text=True, timeout=60)
            for sha256 in (sha256_of(content), "0" * 64)
        )
    assert right.returncode == 0 and (tmp_path / "config.json").read_bytes() == content, right.stderr
    assert "config.json of a/b at 555555555555 has the sha256" in wrong.stderr and "config.yaml says 000000" in wrong.stderr


# --- what transformers says -----------------------------------------------------------------------------------------------------

SAVE = """
import json, sys, tempfile
from pathlib import Path
sys.path.insert(0, {scripts!r})
import make_shapes
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM
found = {{}}
for path in map(Path, sys.argv[1:]):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_bytes(path.read_bytes())
        model = make_shapes.build(Path(folder), json.loads(path.read_text())["architectures"][0])
        ours = {{name: (shape, fill.kind) for name, shape, fill in make_shapes.tensors_of(model)}}
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
        saved = {{}}
        for file in Path(folder).glob("*.safetensors"):
            with safe_open(file, framework="pt") as tensors:
                saved |= {{name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}}
        found[path.stem] = {{"ours": ours, "saved": saved}}
print(json.dumps(found))
"""


@pytest.mark.engine
def test_names_and_shapes_are_those_that_transformers_saves() -> None:
    """Experts apart, as the Hub has them, though a model holds them as one tensor."""
    python = ensure_environment("convert") / "bin" / "python"
    program = SAVE.format(scripts=str(ROOT / "workflow" / "scripts"))
    paths = sorted(map(str, CONFIGS.glob("*-tiny.json")))
    done = subprocess.run([python, "-c", program, *paths], capture_output=True, text=True, env=CONVERTING)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) == 10
    for name, told in found.items():
        assert {tensor: shape for tensor, (shape, _) in told["ours"].items()} == told["saved"], name
    kinds = {model: {tensor: kind for tensor, (_, kind) in told["ours"].items()} for model, told in found.items()}
    assert kinds["qwen3-moe-tiny"]["model.layers.0.mlp.experts.7.gate_proj.weight"] == "random"
    assert kinds["mamba2-tiny"]["backbone.layers.0.mixer.A_log"] == "decay"
    assert kinds["qwen3-next-tiny"]["model.layers.0.linear_attn.dt_bias"] == "time_steps"
    assert kinds["gemma3-tiny"]["model.norm.weight"] == kinds["llama-tiny"]["model.norm.weight"] == "constant"


STRANGE = """
import json, sys, torch
sys.path.insert(0, {scripts!r})
from pathlib import Path
import make_shapes
model = make_shapes.build(Path(sys.argv[1]), "LlamaForCausalLM")
model.model.layers[0].self_attn.strange = torch.nn.Parameter(torch.empty(4, device="meta"))
try:
    make_shapes.tensors_of(model)
except make_shapes.Refused as error:
    print(error)
"""


@pytest.mark.engine
def test_a_tensor_of_which_nothing_is_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((CONFIGS / "llama-tiny.json").read_bytes())
    python = ensure_environment("convert") / "bin" / "python"
    program = STRANGE.format(scripts=str(ROOT / "workflow" / "scripts"))
    done = subprocess.run([python, "-c", program, tmp_path], capture_output=True, text=True, env=CONVERTING)
    assert "what model.layers.0.self_attn.strange of LlamaAttention holds in an untrained model is not known here" in done.stdout, (
        done.stderr
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/ with llama-tiny and its GGUF."""
    folder = tmp_path_factory.mktemp("models")
    prepare.ensure_gguf("llama-tiny", llama(), folder)
    return folder


def llama(**more: Any) -> ShapesModel:
    values = {"source": "shapes", "config": str((CONFIGS / "llama-tiny.json").relative_to(ROOT)), "seed": 1}
    return ShapesModel.model_validate(values | more)


@pytest.mark.engine
def test_the_tiny_llama_has_the_same_bytes_on_every_machine(made: Path) -> None:
    assert (
        sha256_of_file(made / "llama-tiny" / "model-00001-of-00001.safetensors")
        == "d25c3515269512800fe3dc56da4ea85c20a181a7bb72663ad04ec7ea93170c84"
    )
    assert (made / "llama-tiny" / "config.json").read_bytes() == (CONFIGS / "llama-tiny.json").read_bytes()


@pytest.mark.engine
def test_what_transformers_computes_is_kept_beside_the_weights(made: Path) -> None:
    told = json.loads((made / "llama-tiny" / "reference.json").read_text())
    assert told["transformers"] == shapes.transformers_version() and told["dtype"] == "float32"
    assert len(told["prompt"]) == len(told["other_prompt"]) == 48 and told["prompt"][-16:] == told["other_prompt"][-16:]
    assert not set(told["prompt"][:32]) & set(told["other_prompt"][:32])
    assert len(told["top"]) == 20 and max(told["top"].values()) < 0
    assert told["top"] != told["other_top"], "what lies before the last tokens decides"


@pytest.mark.engine
def test_an_architecture_that_transformers_does_not_know_is_one_clear_error(tmp_path: Path, config_json: Path) -> None:
    told = json.loads(config_json.read_text())
    config_json.write_text(json.dumps(told | {"model_type": "nonsense", "architectures": ["NonsenseForCausalLM"]}))
    model = llama(config=str(config_json))
    with pytest.raises(
        ColdprefixError, match=r"cannot make x from its config\.json \(models\.x\.config\): transformers \S+ cannot build it"
    ):
        prepare.ensure_model("x", model, tmp_path / "models")
    config_json.write_text(json.dumps(told | {"architectures": ["MistralForCausalLM"]}))
    with pytest.raises(ColdprefixError, match="transformers builds LlamaForCausalLM from it, not MistralForCausalLM"):
        prepare.ensure_model("x", llama(config=str(config_json)), tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".x.lock"]
