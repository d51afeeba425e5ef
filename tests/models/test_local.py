"""Models of somebody's own: used where they lie, known by their bytes, and refused in one line where they are not whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_table
import pytest
from own_models import POSITIONS, TOKENS, write_folder, write_gguf

from coldprefix.engines.contract import weights_of
from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of_file
from coldprefix.models import prepare, remembered
from coldprefix.models.contract import ModelEntry
from coldprefix.models.folder import FolderModel
from coldprefix.models.gguf import GgufModel
from coldprefix.setup import building


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setattr(building, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(remembered, "_of_this_process", {})
    return tmp_path / "cache"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read whole."""
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return sha256_of_file(path)

    monkeypatch.setattr(remembered, "sha256_of_file", counted)
    return names


def gguf(path: Path, **values: Any) -> GgufModel:
    return GgufModel.model_validate({"source": "gguf", "path": str(path), **values})


def folder(path: Path, **values: Any) -> FolderModel:
    return FolderModel.model_validate({"source": "folder", "path": str(path), **values})


def told(model: ModelEntry) -> tuple[str, int, int]:
    return model.architecture, model.positions, model.vocabulary


def settle(*files: Path) -> None:
    """Make files older than what may still change within a tick of the clock."""
    for file in files:
        os.utime(file, (time.time() - 60,) * 2)


def state_of(place: Path) -> dict[str, tuple[bytes, int, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_nlink) for file in place.iterdir()}


# --- what they say of themselves ---


@pytest.mark.parametrize("per_part", [0, 2])
def test_an_entry_needs_nothing_that_its_gguf_file_says(tmp_path: Path, per_part: int) -> None:
    model = gguf(write_gguf(tmp_path / "m.gguf", architecture="falcon-h1", tensors=5, per_part=per_part))
    assert told(model) == ("falcon-h1", POSITIONS, TOKENS)
    assert model.gguf_type == "Q8_0" and model.offers == ("gguf",)
    assert list(model.missing()) == list(model.problems()) == []
    assert len(model.files()) == (3 if per_part else 1)


def test_an_entry_needs_nothing_that_config_json_says(tmp_path: Path) -> None:
    model = folder(write_folder(tmp_path / "m", parts=2))
    assert told(model) == ("LlamaForCausalLM", POSITIONS, TOKENS)
    assert model.gguf_type == "F16" and model.offers == ("safetensors", "gguf")
    assert list(model.missing()) == []
    assert folder(tmp_path / "m", quantise="Q4_K_M").offers == ("gguf",)


def test_what_a_model_of_more_than_text_says_of_its_text_counts(tmp_path: Path) -> None:
    inner = {"max_position_embeddings": 4096, "vocab_size": 999, "architectures": ["TextOnly"]}
    outer: dict[str, Any] = {"architectures": ["Gemma3ForConditionalGeneration"], "max_position_embeddings": None, "text_config": inner}
    assert told(folder(write_folder(tmp_path / "m", **outer))) == ("Gemma3ForConditionalGeneration", 4096, 999)


def test_positions_that_a_mamba_s_config_json_lacks_come_from_its_entry(tmp_path: Path) -> None:
    place = write_folder(tmp_path / "m", architectures=["MambaForCausalLM"], max_position_embeddings=None)
    assert list(folder(place).missing()) == ["positions: the model does not say it; write it into its entry"]
    model = folder(place, positions=2048)
    assert told(model) == ("MambaForCausalLM", 2048, TOKENS) and list(model.missing()) == []
    assert prepare.ensure_model("m", model, tmp_path / "models")["source"] == "folder"


def test_an_entry_that_contradicts_its_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ColdprefixError, match=r"models\.m\.positions is 100, the model's config\.json says 512; correct config\.yaml"):
        prepare.ensure_model("m", folder(write_folder(tmp_path / "m"), positions=100), tmp_path / "models")
    with pytest.raises(ColdprefixError, match=r"models\.g\.vocabulary is 299, the model's GGUF file says 300"):
        prepare.ensure_model("g", gguf(write_gguf(tmp_path / "g.gguf"), vocabulary=299), tmp_path / "models")


def test_an_entry_that_went_through_the_plan_is_the_same(tmp_path: Path) -> None:
    model = gguf(write_gguf(tmp_path / "m.gguf"))
    assert GgufModel.model_validate(json.loads(json.dumps(model.model_dump(mode="json")))) == model


# --- used where they are ---


@pytest.mark.parametrize("parts", [1, 3])
def test_a_folder_is_used_where_it_is(tmp_path: Path, parts: int) -> None:
    place = write_folder(tmp_path / "own" / "m", parts=parts)
    before = state_of(place)
    record = prepare.ensure_model("x", folder(place), tmp_path / "models")
    assert weights_of(tmp_path / "models", "x", "safetensors") == place
    assert weights_of(tmp_path / "models", "x", "gguf") == tmp_path / "models" / "x-F16.gguf"
    assert state_of(place) == before
    assert set(record["files"]) == set(before) - {"README.md"}
    assert [path.name for path in (tmp_path / "models" / "x").iterdir()] == ["coldprefix.json"]


@pytest.mark.parametrize("per_part", [0, 1])
def test_a_gguf_file_is_used_where_it_is(tmp_path: Path, per_part: int) -> None:
    first = write_gguf(tmp_path / "own" / "m.gguf", per_part=per_part)
    before = state_of(first.parent)
    record = prepare.ensure_weights("x", gguf(first), tmp_path / "models", "gguf")
    assert weights_of(tmp_path / "models", "x", "gguf") == first
    assert (record["file_type"], record["tensors"], record["context_tokens"]) == ("Q8_0", 3, POSITIONS)
    assert record["bytes"] == sum(len(content) for content, *_ in before.values())
    assert state_of(first.parent) == before
    with pytest.raises(ColdprefixError, match="knows no safetensors weights of the model x"):
        weights_of(tmp_path / "models", "x", "safetensors")


def test_a_folder_that_was_moved_is_found_without_making_anything_again(tmp_path: Path, hashed: list[str]) -> None:
    place = write_folder(tmp_path / "m")
    first = prepare.ensure_model("x", folder(place), tmp_path / "models")
    moved = Path(shutil.move(place, tmp_path / "elsewhere"))
    again = prepare.ensure_model("x", folder(moved), tmp_path / "models")
    assert weights_of(tmp_path / "models", "x", "safetensors") == moved
    assert again["identity"] == first["identity"]


def test_a_model_in_the_place_of_our_own_files_is_refused_and_stays(tmp_path: Path) -> None:
    place = write_folder(tmp_path / "models" / "x")
    with pytest.raises(ColdprefixError, match="name the model otherwise"):
        prepare.ensure_model("x", folder(place), tmp_path / "models")
    assert (place / "model.safetensors").exists()


def test_a_folder_that_asks_for_its_code_to_be_run_is_refused(tmp_path: Path) -> None:
    place = write_folder(tmp_path / "m", auto_map={"AutoModel": "evil--x.Y"})
    with pytest.raises(ColdprefixError, match=r"asks to run code of .*evil--x\.Y"):
        prepare.ensure_model("x", folder(place), tmp_path / "models")


# --- their bytes are what they are ---


def test_a_model_is_its_bytes_and_they_are_read_once(tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_gguf(tmp_path / "m.gguf")
    settle(first)
    identity = gguf(first).identity
    monkeypatch.setattr(remembered, "_of_this_process", {})  # another process
    assert gguf(first).identity == identity and hashed == ["m.gguf"]
    os.utime(first)
    settle(first)
    assert gguf(first).identity == identity, "touched, but the same"
    assert gguf(Path(shutil.copy(first, tmp_path / "other.gguf"))).identity == identity, "of another name, but the same"
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    assert gguf(first).identity != identity
    assert gguf(first).identity != gguf(tmp_path / "other.gguf").identity


def test_every_part_of_a_split_file_counts(tmp_path: Path) -> None:
    first = write_gguf(tmp_path / "m.gguf", per_part=1)
    identity = gguf(first).identity
    last = max(tmp_path.glob("m-*.gguf"))
    data = bytearray(last.read_bytes())
    data[-1] ^= 1
    last.write_bytes(data)
    assert gguf(first).identity != identity


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_every_file_that_engines_read_counts(tmp_path: Path, file: str) -> None:
    place = write_folder(tmp_path / "m")
    identity = folder(place).identity
    (place / "README.md").write_text("something else about it")
    assert folder(place).identity == identity
    with open(place / file, "ab") as opened:
        opened.write(b" ")
    assert folder(place).identity != identity


def test_a_file_that_has_just_changed_is_not_trusted_to_stay(tmp_path: Path, hashed: list[str]) -> None:
    """Within a tick of the file system's clock it may change once more, with the same size."""
    first = write_gguf(tmp_path / "m.gguf")
    identities = {gguf(first).identity for _ in range(2)}
    assert len(identities) == 1 and hashed == ["m.gguf"] * 2


def test_what_was_kept_of_a_file_and_got_damaged_is_read_again(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_gguf(tmp_path / "m.gguf")
    settle(first)
    identity = gguf(first).identity
    kept = list((cache / "files").iterdir())
    assert len(kept) == 2, "its header and its sha256"
    for file in kept:
        file.write_text("{")
    monkeypatch.setattr(remembered, "_of_this_process", {})
    assert gguf(first).identity == identity


def test_a_type_to_quantise_to_is_another_model_of_the_same_files(tmp_path: Path) -> None:
    place = write_folder(tmp_path / "m")
    plain, small = folder(place), folder(place, quantise="Q8_0")
    assert plain.original == small.original and plain.identity != small.identity
    prepare.ensure_model("x", plain, tmp_path / "models")
    prepare.ensure_model("x", small, tmp_path / "models")
    assert weights_of(tmp_path / "models", "x", "gguf") == tmp_path / "models" / "x-Q8_0.gguf"


# --- not whole ---


def cut_off(first: Path) -> None:
    """More than what fills up the alignment."""
    first.write_bytes(first.read_bytes()[:-40])


def added_to(first: Path) -> None:
    first.write_bytes(first.read_bytes() + b"x" * 64)


def junk(first: Path) -> None:
    first.write_bytes(b"GGUF" + b"\xff" * 60)


def a_part_is_missing(first: Path) -> None:
    first.with_name("m-00003-of-00003.gguf").unlink()


def a_part_is_cut_off(first: Path) -> None:
    cut_off(first.with_name("m-00002-of-00003.gguf"))


def a_part_comes_twice(first: Path) -> None:
    shutil.copy(first.with_name("m-00002-of-00003.gguf"), first.with_name("m-00003-of-00003.gguf"))


def a_part_is_of_another_file(first: Path) -> None:
    write_gguf(first.parent / "other" / "m.gguf", tensors=6, per_part=2)
    shutil.copy(first.parent / "other" / "m-00003-of-00003.gguf", first.with_name("m-00003-of-00003.gguf"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, "not a readable GGUF file, or not a whole one"),
        (added_to, "it is truncated or has been added to"),
        (junk, "not a readable GGUF file"),
        (a_part_is_missing, "there is no file .*m-00003-of-00003.gguf, which is part 3 of 3"),
        (a_part_is_cut_off, "m-00002-of-00003.gguf is not a readable GGUF file"),
        (a_part_comes_twice, "says that it is part 2 of 3"),
        (a_part_is_of_another_file, "hold 4 tensors of 3"),
    ],
)
def test_a_gguf_file_that_is_not_whole_is_one_error(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    first = write_gguf(tmp_path / "m.gguf", per_part=1 if "part" in damage.__name__ else 0)
    damage(first)
    (line,) = gguf(first, architecture="llama", positions=512, vocabulary=300).missing()
    assert re.match(f"path: .*{message}", line), line
    fault_table.record("Model files", f"own GGUF: {damage.__name__.replace('_', ' ')}", line.replace(str(tmp_path), "…"), "nothing")


def test_another_part_than_the_first_is_sent_to_the_first(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", per_part=1)
    (line,) = gguf(tmp_path / "m-00002-of-00003.gguf").missing()
    assert "name the first: m-00001-of-00003.gguf" in line


def no_config(place: Path) -> None:
    (place / "config.json").unlink()


def no_json(place: Path) -> None:
    (place / "config.json").write_text("<html>")


def no_weights(place: Path) -> None:
    for file in place.glob("*.safetensors"):
        file.unlink()


def no_shard(place: Path) -> None:
    (place / "model-00002-of-00002.safetensors").unlink()


def no_folder(place: Path) -> None:
    shutil.rmtree(place)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_config, "holds no config.json"),
        (no_json, "holds no JSON object"),
        (no_weights, "holds no .safetensors file"),
        (no_shard, "lacks model-00002-of-00002.safetensors, which its model.safetensors.index.json names"),
        (no_folder, "there is no file or folder"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_error(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    place = write_folder(tmp_path / "m", parts=2)
    damage(place)
    (line,) = folder(place, architecture="X", positions=512, vocabulary=300).missing()
    assert line.startswith("path: ") and message in line, line
    fault_table.record("Model files", f"own folder: {damage.__name__.replace('_', ' ')}", line.replace(str(tmp_path), "…"), "nothing")


def test_safetensors_that_are_cut_off_are_refused_before_an_engine_reads_them(tmp_path: Path) -> None:
    place = write_folder(tmp_path / "m")
    cut_off(place / "model.safetensors")
    with pytest.raises(ColdprefixError, match=r"model\.safetensors \(models\.x\.path\) cannot be read: .*copy it again"):
        prepare.ensure_model("x", folder(place), tmp_path / "models")


def test_a_folder_of_gguf_files_is_sent_to_them(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m" / "q8.gguf")
    (line,) = folder(tmp_path / "m").missing()
    assert line.endswith(f"name its GGUF file itself: {tmp_path / 'm' / 'q8.gguf'}")
