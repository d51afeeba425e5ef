"""What a converted file may say differently from config.json, and how converter and llama-quantize are called."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter, LlamaFileType
from own_models import write_folder

from coldprefix.engines.llamacpp import build
from coldprefix.errors import ColdprefixError
from coldprefix.models import convert
from coldprefix.models.gguf_check import check_gguf
from coldprefix.setup import building


def converted(path: Path, architecture: str, file_type: LlamaFileType = LlamaFileType.MOSTLY_F16, **fields: int) -> Path:
    """A file as the converter writes one."""
    writer = GGUFWriter(path, architecture)
    writer.add_file_type(file_type)
    for key, value in fields.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_tensor("token_embd.weight", np.zeros((4, 8), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_context_that_the_converter_raises_on_purpose_is_no_contradiction(tmp_path: Path) -> None:
    """Granite 4 has no position limit (conversion/granite.py writes 2^20), but its config.json says 131072."""
    model = write_folder(tmp_path / "m", max_position_embeddings=131072, num_hidden_layers=4)
    path = converted(tmp_path / "m.gguf", "granitehybrid", context_length=2**20, block_count=4)
    assert check_gguf(path, model)["context_tokens"] == 2**20


def test_a_context_that_is_shorter_than_the_model_s_is_one(tmp_path: Path) -> None:
    model = write_folder(tmp_path / "m", max_position_embeddings=131072)
    path = converted(tmp_path / "m.gguf", "granitehybrid", context_length=4096)
    with pytest.raises(ColdprefixError, match=r"granitehybrid\.context_length is 4096, config\.json says 131072"):
        check_gguf(path, model)


def test_a_model_without_positions_is_converted(tmp_path: Path) -> None:
    model = write_folder(tmp_path / "m", max_position_embeddings=None, num_hidden_layers=3)
    assert check_gguf(converted(tmp_path / "m.gguf", "mamba", context_length=2**20, block_count=3), model)["architecture"] == "mamba"


@pytest.mark.parametrize(
    ("blocks", "tail", "right"), [(4, 0, True), (5, 1, True), (4, 1, True), (5, 0, False), (6, 1, False), (3, 1, False)]
)
def test_layers_that_predict_several_tokens_are_blocks_beside_those_of_config_json(
    tmp_path: Path, blocks: int, tail: int, right: bool
) -> None:
    model = write_folder(tmp_path / "m", num_hidden_layers=4)
    fields = {"nextn_predict_layers": tail} if tail else {}
    path = converted(tmp_path / "m.gguf", "glm4moe", context_length=512, block_count=blocks, **fields)
    if right:
        check_gguf(path, model)
        return
    with pytest.raises(ColdprefixError, match=rf"glm4moe\.block_count is {blocks}, config\.json says 4"):
        check_gguf(path, model)


def test_what_is_converted_here_is_f16(tmp_path: Path) -> None:
    path = converted(tmp_path / "m.gguf", "llama", LlamaFileType.MOSTLY_Q8_0, context_length=512)
    with pytest.raises(ColdprefixError, match=r"general\.file_type is 7, F16 is 1"):
        check_gguf(path, write_folder(tmp_path / "m"))


@pytest.mark.parametrize(("architecture", "option"), [("Qwen3NextForCausalLM", True), ("LlamaForCausalLM", False)])
def test_the_tail_is_left_out_where_the_converter_insists_on_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, option: bool
) -> None:
    """Qwen3-Next without its tail's tensors: AssertionError, unless --no-mtp is given; others exit with it."""
    monkeypatch.setattr(convert, "converter", lambda: [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"])
    model = write_folder(tmp_path / "m", architectures=[architecture])
    convert.convert("m", model, tmp_path / "out.gguf", tmp_path / "log")
    assert json.loads((tmp_path / "log").read_text()) == [
        *(["--no-mtp"] if option else []),
        str(model),
        "--outfile",
        str(tmp_path / "out.gguf"),
    ]


def test_a_quantisation_that_fails_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llama-quantize").write_text('#!/bin/sh\necho "$@"; echo no such type; exit 1\n')
    (tmp_path / "llama-quantize").chmod(0o755)
    monkeypatch.setattr(convert, "ensure_build", lambda accelerator: tmp_path if accelerator == "cuda" else None)
    with pytest.raises(ColdprefixError, match=r"(?s)llama-quantize cannot make Q2_K of m \(exit code 1\):.*no such type.*The whole log: "):
        convert.quantise("m", tmp_path / "in.gguf", "Q2_K", tmp_path / "out", tmp_path / "log", "cuda")
    assert (tmp_path / "log").read_text().startswith(f"{tmp_path}/in.gguf {tmp_path}/out Q2_K\n")


def test_a_build_that_lacks_a_program_is_not_taken_for_one_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache may hold one that was made before the program was wanted."""
    built: list[Path] = []
    monkeypatch.setattr(building, "CACHE", tmp_path)
    monkeypatch.setattr(build, "_build", lambda _accelerator, folder, *_: built.append(folder))
    for targets in (("llama-server", "llama-bench"), build.TARGETS):
        monkeypatch.setattr(build, "TARGETS", targets)
        assert build.ensure_build("cpu") == built[-1]
    assert len(set(built)) == 2
    assert "llama-quantize" in build.TARGETS
