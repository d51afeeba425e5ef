"""Models that are given by their paths, and phases that cannot run a model: said before anything is downloaded or made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Values, with_values
from own_models import POSITIONS, TOKENS, write_folder, write_gguf

from coldprefix.errors import ColdprefixError
from coldprefix.job import Cell
from coldprefix.models import remembered
from coldprefix.setup import building
from coldprefix.study.checks import parse
from coldprefix.study.plan import plan_of

SHORT: Values = {"experiments": ["main"], "configurations": ["A64_B64"]}
LLAMA: Values = {**SHORT, "phases": ["phase3a", "phase3b"]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(remembered, "_of_this_process", {})


def refusal(values: Values, changes: Values) -> list[str]:
    with pytest.raises(ColdprefixError) as caught:
        parse(with_values(values, changes))
    return str(caught.value).splitlines()[1:]


def test_a_gguf_file_is_measured_without_an_entry(values: Values, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "some model (2)-Q8_0.gguf")
    plan = plan_of(parse(with_values(values, {**LLAMA, "model": str(path)})))
    uses = {job.model for job in plan.jobs.values()}
    (use,) = {(use.name, use.source, use.positions, use.vocabulary, use.gguf_type) for use in uses}
    assert use == ("some-model-2-Q8_0", "gguf", POSITIONS, TOKENS, "Q8_0")
    assert "results/setup/gguf/some-model-2-Q8_0.json" in plan.setup_records()


def test_a_split_file_is_named_by_its_first_part(values: Values, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "big.gguf", per_part=1)
    assert parse(with_values(values, {**LLAMA, "model": str(path)})).model == "big"


def test_a_folder_is_measured_without_an_entry_by_all_phases(values: Values, tmp_path: Path) -> None:
    place = write_folder(tmp_path / "own", parts=2)
    plan = plan_of(parse(with_values(values, {**SHORT, "model": f"{place}/"})))
    assert {(job.phase, job.model.name, job.model.gguf_type) for job in plan.jobs.values()} == {
        *((phase, "own", None) for phase in ("phase1", "phase2")),
        *((phase, "own", "F16") for phase in ("phase3a", "phase3b")),
    }


def test_a_path_from_here_is_one_too(values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "m.gguf")
    monkeypatch.chdir(tmp_path)
    for given in ("m.gguf", "./m.gguf"):
        config = parse(with_values(values, {**LLAMA, "model": given}))
        assert config.models[config.model].place == tmp_path / "m.gguf"


def test_phases_have_models_by_path(values: Values, tmp_path: Path) -> None:
    """Two that are called the same are two models."""
    one, other = write_gguf(tmp_path / "a" / "m.gguf"), write_gguf(tmp_path / "b" / "m.gguf", tensors=4)
    models = {"phase3a": str(one), "phase3b": str(other)}
    config = parse(with_values(values, {**LLAMA, "phase_models": models}))
    assert config.phase_models == {"phase3a": "m", "phase3b": "m-2"}
    same = parse(with_values(values, {**LLAMA, "phase_models": {**models, "phase3b": str(one)}}))
    assert same.phase_models == {"phase3a": "m", "phase3b": "m"}


def test_a_name_that_is_taken_is_left_to_its_entry(values: Values, tmp_path: Path) -> None:
    place = write_folder(tmp_path / "gpt2")
    config = parse(with_values(values, {**SHORT, "model": str(place)}))
    assert config.model == "gpt2-2" and config.models["gpt2"].source == "hub"


@pytest.mark.parametrize("given", ["/nowhere/m.gguf", "./nothing", "~nobody-of-this-name/m"])
@pytest.mark.parametrize("key", ["model", "phase_models.phase3a"])
def test_a_path_with_nothing_there_is_one_line(values: Values, given: str, key: str) -> None:
    changes: Values = {"model": given} if key == "model" else {"phase_models": {"phase3a": given}}
    (line,) = refusal(values, changes)
    assert line.startswith(f"  {key}: ") and given.removeprefix("./") in line


def test_a_file_of_weights_is_not_the_model(values: Values, tmp_path: Path) -> None:
    place = write_folder(tmp_path / "m")
    (line,) = refusal(values, {"model": str(place / "model.safetensors")})
    assert line == f"  model: {place}/model.safetensors is no .gguf file; of a model in safetensors, name the folder"


def test_a_damaged_model_is_one_line(values: Values, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    path.write_bytes(path.read_bytes()[:-40])
    (line,) = refusal(values, {**LLAMA, "model": str(path)})
    assert line.startswith(f"  models.m.path: {path} is not a readable GGUF file, or not a whole one")


def test_a_model_that_is_not_used_may_be_missing(values: Values) -> None:
    """config.yaml may be shared by machines that do not all have it."""
    entry = {"source": "gguf", "path": "/nowhere/m.gguf"}
    parsed = parse(with_values(values, {**SHORT, "models.elsewhere": entry}))
    assert parsed.model == "gpt2-standin"
    (line,) = refusal(values, {**LLAMA, "models.elsewhere": entry, "model": "elsewhere"})
    assert line == "  models.elsewhere.path: there is no file or folder /nowhere/m.gguf"


# --- what a phase cannot run ---

HUB = {"source": "hub", "repository": "a/b", "revision": "5" * 40, "architecture": "llama", "positions": 512, "vocabulary": 300}


def test_vllm_is_not_asked_to_load_gguf(values: Values, tmp_path: Path) -> None:
    lines = refusal(values, {**SHORT, "model": str(write_gguf(tmp_path / "m.gguf"))})
    assert [line.split()[1] for line in lines] == ["phase1", "phase2"]
    assert lines[0] == (
        "  model: phase1 runs vLLM, which loads safetensors, and m has none (it is a GGUF file); leave phase1 out "
        "(phases=phase3a,phase3b), or name another model for it in phase_models"
    )
    both = {**SHORT, "model": str(tmp_path / "m.gguf"), "phase_models": {"phase1": "gpt2-standin", "phase2": "gpt2-standin"}}
    assert parse(with_values(values, both)).model_of(Cell("phase3a", "main", "A64_B64", "hit")) == "m"


@pytest.mark.parametrize("entry", [{**HUB, "files": {"m.gguf": None}}, None])
def test_a_gguf_file_of_the_hub_and_a_quantised_model_are_for_llama_cpp_alone(values: Values, entry: Any) -> None:
    changes: Values = {"model": "own", "models.own": entry} if entry else {"models.gpt2-standin.quantise": "Q4_K_M"}
    lines = refusal(values, {**SHORT, **changes})
    assert len(lines) == 2 and all("vLLM, which loads safetensors" in line for line in lines)
    assert ("quantised to Q4_K_M" in lines[0]) == (entry is None)
    plan = plan_of(parse(with_values(values, {**LLAMA, **changes})))
    assert {job.model.gguf_type for job in plan.jobs.values()} == {"GGUF" if entry else "Q4_K_M"}


@pytest.mark.parametrize(
    ("name", "kind"), [("m-Q4_K_M-00001-of-00001.gguf", "Q4_K_M"), ("m.iq4_xs.gguf", "IQ4_XS"), ("x-bf16.gguf", "BF16"), ("q.gguf", "GGUF")]
)
def test_the_type_of_a_file_that_is_not_there_yet_is_what_its_name_says(values: Values, name: str, kind: str) -> None:
    changes = {**LLAMA, "model": "own", "models.own": {**HUB, "files": {name: None}}}
    assert {job.model.gguf_type for job in plan_of(parse(with_values(values, changes))).jobs.values()} == {kind}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"files": {"m.gguf": None, "model.safetensors": None}}, "a GGUF file beside other weights"),
        ({"files": {"a.gguf": None, "b.gguf": None}}, "of a.gguf it is not: b.gguf"),
        ({"files": {"m-00001-of-00002.gguf": None}}, "it is not: m-00002-of-00002.gguf"),
        ({"files": {"m-00002-of-00002.gguf": None}}, "name the first: m-00001-of-00002.gguf"),
        ({"files": {"m.gguf": None}, "quantise": "Q8_0"}, "quantise: m.gguf is a GGUF file already"),
        ({"files": {"m.gguf": None}, "quantise": "Q9_0"}, "quantise: 'Q9_0' is not 'Q8_0', 'Q6_K'"),
    ],
)
def test_an_entry_of_gguf_files_that_makes_no_model_is_refused(values: Values, entry: Values, message: str) -> None:
    assert any(line.startswith("  models.own.") and message in line for line in refusal(values, {**LLAMA, "models.own": {**HUB, **entry}}))


def test_an_architecture_that_the_converter_refuses_is_known_by_name(values: Values, tmp_path: Path) -> None:
    place = write_folder(tmp_path / "m", architectures=["OPTForCausalLM"])
    lines = refusal(values, {**SHORT, "model": str(place)})
    assert len(lines) == 2 and all("Model OPTForCausalLM is not supported" in line for line in lines)
