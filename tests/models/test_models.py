"""Stand-in models and their conversion: the same bytes everywhere, and a GGUF that holds what the model holds."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_table
import numpy as np
import pytest
from conftest import ROOT, SAME_PATH
from gguf import GGUFReader, GGUFWriter, LlamaFileType
from safetensors.numpy import load_file, save_file

from coldprefix.engines.contract import weights_of
from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of_file
from coldprefix.models import prepare, standin
from coldprefix.models.folder import FolderModel
from coldprefix.models.gguf_check import check_gguf
from coldprefix.models.standin import StandinModel
from coldprefix.models.standin_shapes import SHAPES
from coldprefix.study.checks import load
from coldprefix.study.config import Config

pytestmark = pytest.mark.engine  # the tokenizer comes from llama.cpp's source, the converter needs torch


def _tiny() -> StandinModel:
    model = load(ROOT / "config.yaml").models["gpt2-tiny"]
    assert isinstance(model, StandinModel)
    return model


def test_a_standin_has_the_same_bytes_on_every_machine(tiny: Path) -> None:
    assert sha256_of_file(tiny / "gpt2-tiny" / "model.safetensors") == _tiny().sha256


@pytest.mark.parametrize(("name", "parameters", "tensors"), [("gpt2-standin", 124_439_808, 148), ("opt-125m-standin", 125_239_296, 196)])
def test_the_standins_have_the_shape_of_the_originals(config: Config, name: str, parameters: int, tensors: int) -> None:
    model = config.models[name]
    assert isinstance(model, StandinModel)
    shapes = list(SHAPES[model.architecture](model.layers, model.width, model.positions, model.vocabulary))
    assert sum(int(np.prod(shape)) for _, shape, _ in shapes) == parameters
    assert len(shapes) == tensors


def test_weights_are_spread_as_in_an_untrained_model(tiny: Path) -> None:
    tensors = load_file(tiny / "gpt2-tiny" / "model.safetensors")
    assert tensors["wte.weight"].std() == pytest.approx(0.02, rel=0.01)
    assert abs(tensors["wte.weight"].mean()) < 1e-4
    assert (tensors["h.0.ln_1.weight"] == 1).all() and (tensors["h.1.attn.c_attn.bias"] == 0).all()


def test_the_tokenizer_is_gpt2_s(tiny: Path) -> None:
    vocabulary = json.loads((tiny / "gpt2-tiny" / "vocab.json").read_text())
    assert [vocabulary[token] for token in ("hello", "Ġworld", "Ġfoo", "<|endoftext|>")] == [31373, 995, 22944, 50256]


def test_other_bytes_than_expected_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ColdprefixError, match=r"(?s)has the sha256 [0-9a-f]{64}, config\.yaml says 0{64}.*models\.x\.sha256"):
        prepare.ensure_model("x", _tiny().model_copy(update={"sha256": "0" * 64}), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".x.lock"]


def test_a_finished_model_is_not_made_again_and_a_damaged_one_is(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny, tmp_path / "models")
    record = prepare.ensure_gguf("gpt2-tiny", _tiny(), tmp_path / "models")
    calls: list[str] = []
    real = standin.generate

    def counted(*arguments: Any, **options: Any) -> None:
        calls.append("generate")
        real(*arguments, **options)

    monkeypatch.setattr(standin, "generate", counted)
    assert prepare.ensure_gguf("gpt2-tiny", _tiny(), tmp_path / "models") == record
    assert calls == []
    (tmp_path / "models" / "gpt2-tiny" / "model.safetensors").write_bytes(b"cut off")
    again = prepare.ensure_model("gpt2-tiny", _tiny(), tmp_path / "models")
    assert calls == ["generate"] and again["files"]["model.safetensors"]["sha256"] == _tiny().sha256


def test_two_processes_that_make_the_same_model_at_once_both_succeed_and_one_generates(tmp_path: Path) -> None:
    """As two runs in one folder, or two phases of one run that find it missing."""
    entry = _tiny().model_copy(update={"layers": 1, "width": 32, "heads": 1, "sha256": None})
    program = (
        f"{SAME_PATH}import time; from pathlib import Path\n"
        "from coldprefix.models import prepare; from coldprefix.models.standin import StandinModel\n"
        f"model, folder = StandinModel.model_validate_json({entry.model_dump_json()!r}), Path({str(tmp_path / 'models')!r})\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(prepare.ensure_model('x', model, folder)['files']['model.safetensors']['sha256'])"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    (sha256,) = {out.strip() for out, _ in results}
    assert sha256 == sha256_of_file(tmp_path / "models" / "x" / "model.safetensors")
    told = "".join(err for _, err in results)
    assert told.count("model x: generating") == 1 and told.count("waiting for another run that is building x") == 1, told
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [".x.lock", "x"]


def test_what_a_killed_process_left_of_a_model_is_removed_by_the_next_one(tmp_path: Path) -> None:
    """And what a living one has, as it is making a model, too, is left."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = os.uname().nodename
    left, kept = (tmp_path / f".x.{host}.{pid}.part" for pid in (ended.pid, os.getppid()))
    for folder in (left, kept):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
    prepare.ensure_model("x", _tiny().model_copy(update={"layers": 1, "width": 32, "heads": 1, "sha256": None}), tmp_path)
    assert not left.exists() and kept.exists()


def test_the_gguf_is_read_back(tiny: Path) -> None:
    found = check_gguf(tiny / "gpt2-tiny-F16.gguf", tiny / "gpt2-tiny")
    assert found == {"architecture": "gpt2", "tensors": 28, "file_type": "F16", "context_tokens": 1024}


@pytest.fixture(scope="module")
def light(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The GGUF file without its vocabulary, which `gguf` reads for seconds and the check does not look at."""
    path, whole = tmp_path_factory.mktemp("light") / "m.gguf", GGUFReader(tiny / "gpt2-tiny-F16.gguf")
    writer = GGUFWriter(path, "gpt2")
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    for key in ("block_count", "context_length", "embedding_length", "attention.head_count"):
        writer.add_uint32(f"gpt2.{key}", whole.fields[f"gpt2.{key}"].contents())
    for tensor in whole.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert check_gguf(path, tiny / "gpt2-tiny") == {"architecture": "gpt2", "tensors": 28, "file_type": "F16", "context_tokens": 1024}
    return path


def cut(path: Path, _model: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def extend(path: Path, _model: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 32)


def junk(path: Path, _model: Path) -> None:
    path.write_bytes(b"junk" * 100)


def flip_a_value(path: Path, _model: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5000] ^= 0x01  # in the last tensor, the token embeddings
    path.write_bytes(data)


def not_a_number(path: Path, _model: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2:] = b"\xff\x7f"
    path.write_bytes(data)


def other_layers(_path: Path, model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"n_layer": 3}))


def other_shape(_path: Path, model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["wpe.weight"] = tensors["wpe.weight"][:-1]
    save_file(tensors, model / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "truncated|not a readable GGUF"),
        (extend, "truncated or has been added to"),
        (junk, "not a readable GGUF file"),
        (flip_a_value, "token_embd.weight does not hold the values of wte.weight"),
        (not_a_number, "token_embd.weight holds values that are not finite"),
        (other_layers, "gpt2.block_count is 2, config.json says 3"),
        (other_shape, r"position_embd.weight has the shape \(1024, 128\)"),
    ],
)
def test_a_gguf_that_is_not_the_model_is_refused(
    tiny: Path, light: Path, tmp_path: Path, damage: Callable[[Path, Path], None], message: str
) -> None:
    folder, path = tmp_path / "model", tmp_path / "m.gguf"
    shutil.copytree(tiny / "gpt2-tiny", folder)
    shutil.copy(light, path)
    damage(path, folder)
    with pytest.raises(ColdprefixError, match=message) as caught:
        check_gguf(path, folder)
    fault_table.record(
        "Model files", f"GGUF: {damage.__name__.replace('_', ' ')}", str(caught.value).replace(str(tmp_path), "…"), "nothing"
    )


def test_weights_in_several_files_are_compared_too(tiny: Path, light: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny / "gpt2-tiny", folder)
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    (folder / "model.safetensors").unlink()
    for number, part in enumerate((names[:9], names[9:])):
        save_file({f"transformer.{name}": tensors[name] for name in part}, folder / f"model-{number}-of-2.safetensors")
    assert check_gguf(light, folder)["tensors"] == 28
    (folder / "model-0-of-2.safetensors").unlink()
    with pytest.raises(ColdprefixError, match=r"the safetensors in .* hold no h\.0\."):
        check_gguf(light, folder)
    (folder / "model-1-of-2.safetensors").write_bytes(b"junk")
    with pytest.raises(ColdprefixError, match=r"the weights in .* cannot be read"):
        check_gguf(light, folder)


def test_a_converted_model_is_quantised_by_the_build_s_own_program(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "models")
    small = _tiny().model_copy(update={"quantise": "Q8_0"})
    record = prepare.ensure_gguf("gpt2-tiny", small, tmp_path / "models")
    path = weights_of(tmp_path / "models", "gpt2-tiny", "gguf")
    assert path == tmp_path / "models" / "gpt2-tiny-Q8_0.gguf"
    assert (record["file_type"], record["tensors"], record["context_tokens"]) == ("Q8_0", 28, 1024)
    assert record["sha256"] == sha256_of_file(path) and record["bytes"] < 0.6 * (path.parent / "gpt2-tiny-F16.gguf").stat().st_size
    made_ns = path.stat().st_mtime_ns
    assert prepare.ensure_gguf("gpt2-tiny", small, tmp_path / "models") == record
    assert path.stat().st_mtime_ns == made_ns, "made once"
    prepare.ensure_gguf("gpt2-tiny", _tiny(), tmp_path / "models")
    assert weights_of(tmp_path / "models", "gpt2-tiny", "gguf") == tmp_path / "models" / "gpt2-tiny-F16.gguf"


def test_a_folder_of_one_s_own_is_converted_elsewhere(tiny: Path, tmp_path: Path) -> None:
    """In several files, as large models are; nothing is written beside them."""
    place = tmp_path / "own"
    shutil.copytree(tiny / "gpt2-tiny", place, ignore=shutil.ignore_patterns("coldprefix.json", "model.safetensors"))
    tensors = load_file(tiny / "gpt2-tiny" / "model.safetensors")
    names = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(tensors))}
    for file in set(names.values()):
        save_file({name: tensors[name] for name in tensors if names[name] == file}, place / file, metadata={"format": "pt"})
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))

    def state() -> dict[str, tuple[int, int, int]]:
        return {path.name: (path.stat().st_mtime_ns, path.stat().st_size, path.stat().st_ino) for path in place.iterdir()}

    before = state()
    record = prepare.ensure_gguf("x", FolderModel.model_validate({"source": "folder", "path": str(place)}), tmp_path / "models")
    assert (record["tensors"], record["architecture"]) == (28, "gpt2")
    assert sha256_of_file(tmp_path / "models" / "x-F16.gguf") == record["sha256"]
    assert state() == before


def test_the_converter_sees_no_token_and_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lets code of a repository run for some architectures."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    seen = tmp_path / "seen"
    program = f"import os, sys; open({str(seen)!r}, 'w').write(repr((dict(os.environ), sys.stdin.read()))); sys.exit(3)"
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -c "$(cat {tmp_path}/program)"\n')
    (tmp_path / "program").write_text(program)
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "bin").symlink_to(tmp_path)
    monkeypatch.setattr("coldprefix.models.convert.ensure_environment", lambda _name: tmp_path)
    with pytest.raises(ColdprefixError, match="cannot convert"):
        prepare.ensure_gguf("gpt2-tiny", _tiny(), tmp_path / "models")
    environment, typed = ast.literal_eval(seen.read_text())
    assert "secret" not in environment.values() and environment["HF_HUB_OFFLINE"] == "1" and typed == ""


def test_a_model_the_converter_refuses_is_one_clear_error(tmp_path: Path) -> None:
    opt: dict[str, Any] = {"architecture": "OPTForCausalLM", "vocabulary": 50272, "sha256": None}
    with pytest.raises(ColdprefixError, match=r"(?s)converter cannot convert opt.*Model OPTForCausalLM is not supported"):
        prepare.ensure_gguf("opt", _tiny().model_copy(update=opt), tmp_path)
    assert not list(tmp_path.glob("*.gguf*"))
