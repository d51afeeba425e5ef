"""The configuration: what is wrong stops at once, with the key's path and what to write instead."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from conftest import ROOT, Values, with_values
from hypothesis import given, settings
from hypothesis import strategies as st

from coldprefix.errors import ColdprefixError
from coldprefix.job import Cell
from coldprefix.study.checks import load, parse
from coldprefix.study.config import Config


def test_the_repository_s_own_configuration_is_valid_and_has_24_cells_and_sweeps(config: Config) -> None:
    assert sum(cell.sweep == "main" for cell in config.all_cells()) == 24
    sweeps = Counter(cell.sweep for cell in config.all_cells())
    assert sweeps == {"main": 24, "scaling": 4, "batch_size": 10, "confound": 8, "host_tier": 4, "request_form": 12, "slots": 3}
    assert config.model_of(config.all_cells()[0]) == "gpt2-standin"


BAD: list[tuple[Values, str]] = [
    (
        {"model": "lfm2-tiny", "accelerator": "cpu"},
        "model: phase1 runs vLLM, which cannot run lfm2-tiny (its CPU build computes something else: of the model's 20 likeliest next tokens it",
    ),
    (
        {"sweeps.architectures.variants.llama.model": "lama-tiny"},
        "sweeps.architectures.variants.llama.model: there is no model 'lama-tiny' (did you",
    ),
    ({"states": ["hit", "substitute-1@900"]}, "states: substitute-1@900 of A512_B256: the place 900 lies beyond the 768 tokens of [A, B]"),
    ({"partners": ["hit", "delete-768@0"]}, "partners: delete-768@0 of A512_B256: nothing of [A, B] would be left"),
    ({"states": "hit,delete-0@50%"}, "states.1: 'delete-0@50%' changes nothing; write at least 1 token"),
    (
        {"configurations": "A8_B64", "experiments": ["main"]},
        "a hit of 72 tokens reuses nothing on phase1, which reuses whole blocks of 128",
    ),
    ({"llamacpp.cache_reuse": 64}, "llamacpp.cache_reuse: llama-cpp-python (phase3b) cannot move cached runs; write cache_reuse: 0"),
    ({"llamacpp.kv_type": "q8_0", "llamacpp.flash_attention": False}, "llamacpp.kv_type: q8_0 needs flash attention"),
    ({"llamacpp.kv_type": "q8"}, "llamacpp.kv_type: 'q8' is not 'f16'"),
    ({"vllm.retention_tokens": "some"}, "vllm.retention_tokens"),
    ({"vllm.pool_blocks": 1}, "vllm.pool_blocks: 1: should be greater than or equal to 2"),
    ({"vllm.pool_blocks": "many"}, "vllm.pool_blocks: 'many'"),
    (
        {"vllm.pool_blocks": 8, "vllm.block_tokens": 32},
        "vllm.pool_blocks: 8 blocks of 32 tokens do not hold a context of 1024; write at least 33",
    ),
    ({"vllm.mamba_mode": "none"}, "vllm.mamba_mode: with prefix_caching: true vLLM takes align in the place of none; write align or auto"),
    ({"vllm.mamba_mode": "all"}, "vllm.mamba_mode: 'all' is not 'auto', 'align' or 'none'"),
    ({"partners": "hit,foreign-9000"}, "partners: 'foreign-9000': sends at most 8192 tokens in between"),
    ({"layout": "nowhere.yaml"}, "layout: cannot read nowhere.yaml"),
    ({"trialz": 3}, "trialz: there is no such key (did you mean 'trials'?)"),
    ({"vllm.block_tokenz": 16}, "vllm.block_tokenz: there is no such key (did you mean 'block_tokens'?)"),
    ({"configurations": ["A512-B256"]}, "configurations.0: 'A512-B256'"),
    ({"configurations": "A512_B256,A512_B256"}, "names something twice"),
    ({"question_tokens": 0}, "question_tokens: 0"),
    ({"models.gpt2.file": {}}, "models.gpt2.file: there is no such key (did you mean 'files'?)"),
    ({"trials": "many"}, "trials: 'many'"),
    ({"trials": 0}, "trials: 0: should be greater than or equal to 1"),
    ({"trials": 2.5}, "trials: 2.5"),
    ({"processes": 0}, "processes: 0: should be greater than or equal to 1"),
    ({"partners": "hit,mis"}, "partners: there is no state 'mis' (did you mean 'miss'?)"),
    ({"sweeps.scaling.partners": ["warm"]}, "sweeps.scaling.partners: there is no state 'warm'"),
    ({"max_rejected": 1.5}, "max_rejected: 1.5"),
    ({"timeout_s": float("nan")}, "timeout_s"),
    ({"vllm.block_tokens": 17}, "vllm.block_tokens: 17 is not"),
    ({"phases": "phase3"}, "did you mean 'phase3"),
    ({"phases": ["phase1", "phase1"]}, "phases: ['phase1', 'phase1'] names something twice"),
    ({"phases": []}, "phases: []"),
    ({"accelerator": "gpu"}, "accelerator: 'gpu' is not 'auto', 'cpu' or 'cuda'"),
    ({"threads": 0}, "threads"),
    ({"model": "gpt-2"}, "model: there is no model 'gpt-2' (did you mean 'gpt2'?)"),
    ({"phase_models": {"phase1": "opt"}}, "phase_models.phase1: there is no model 'opt'"),
    ({"phase_models": {"phase9": "gpt2"}}, "phase_models.phase9"),
    (
        {"model": "opt-125m"},
        'phase3a runs llama.cpp, which cannot run opt-125m (convert_hf_to_gguf.py: "Model OPTForCausalLM is not supported")',
    ),
    (
        {"experiments": ["main"], "configurations": ["A900_B256"]},
        "configurations: A900_B256: A + B + question_tokens + stream_tokens = 1230 tokens do not fit the 1024 tokens",
    ),
    ({"llamacpp.context_tokens": 512}, "(llamacpp.context_tokens); shorten them by"),
    ({"llamacpp.ubatch_tokens": 4096}, "llamacpp.ubatch_tokens: 4096 is more than batch_tokens (2048)"),
    ({"vllm.prefix_caching": False}, "vllm.prefix_caching: false makes every hit a miss"),
    ({"llamacpp.prompt_cache": False}, "llamacpp.prompt_cache: false makes every hit a miss"),
    ({"models.gpt2.revision": "main"}, "models.gpt2.revision: 'main'"),
    ({"models.gpt2.source": "torrent"}, "models.gpt2"),
    ({"models.gpt2.repository": "../../etc"}, "models.gpt2.repository"),
    ({"models.gpt2.files": {"model.safetensors": None}}, "models.gpt2.files"),
    ({"models.gpt2.files": {"config.json": None, "pytorch_model.bin": None}}, "'pytorch_model.bin' is a pickle, which can run code"),
    ({"models.gpt2.files": {"config.json": None, "m.safetensors": None, "modeling_x.py": None}}, "'modeling_x.py' is a program"),
    ({"models.gpt2.files": {"config.json": None, "../x.safetensors": None}}, "'../x.safetensors' is not the name of a file inside"),
    ({"models.gpt2.files": {"config.json": "abc", "m.safetensors": None}}, "models.gpt2.files.config.json: 'abc' is not a sha256"),
    ({"models.gpt2-standin.width": 700}, "models.gpt2-standin.width: 700 is not a multiple of 32 x heads (384)"),
    ({"models.gpt2-standin.architecture": "LlamaForCausalLM"}, "models.gpt2-standin.architecture"),
    ({"configurations": ["../A1_B2"]}, "../A1_B2"),
    ({"configurations": ["A1_B2; rm -rf"]}, "A1_B2; rm -rf"),
    ({"configurations": ["A0_B2"]}, "A0_B2"),
    ({"cells": {"phase3b/A512_B256/mis": {"trials": 3}}}, "'phase3b/A512_B256/mis' is not phase/configuration/state"),
    ({"cells": {"phase3b/A1_B2/miss": {"trials": 3}}}, "matches no cell"),
    ({"cells": {"*/*/miss": {"trails": 3}}}, "did you mean 'trials'?"),
    ({"experiments": ["main", "scalling"]}, "experiments: there is no sweep 'scalling' (did you mean 'scaling'?)"),
    ({"experiments": ["batch_size"], "phases": ["phase1"]}, "have no cell with the phases ['phase1']"),
    (
        {"sweeps.batch_size.variants.n64": {"llamacpp": {"batch_token": 64}}},
        "sweeps.batch_size.variants.n64.llamacpp.batch_token: there is no such key (did you mean 'batch_tokens'?)",
    ),
    ({"sweeps.batch_size.variants.n64": {"llamacpp": {"batch_tokens": 64}}}, "sweeps.batch_size.llamacpp.ubatch_tokens: 512 is more than"),
    ({"sweeps.scaling.configurations": ["A16_B1008"]}, "sweeps.scaling.configurations: A16_B1008: A + B + question_tokens"),
    ({"sweeps.scaling.phases": ["phase4"]}, "sweeps.scaling.phases.0: there is no phase 'phase4'"),
    ({"sweeps.scaling.variants": {"a b": {}}}, "sweeps.scaling.variants"),
    ({"sweeps.main": {"phases": ["phase1"], "states": ["hit"], "configurations": ["A9_B9"]}}, "sweeps.main: the name main is taken"),
    ({"request_form": "json"}, "request_form: 'json' is not 'tokens', 'text' or 'chat'"),
    ({"content": "stale"}, "content: 'stale' is not 'fresh' or 'repeated'"),
    ({"figures.font_pt": "big"}, "figures.font_pt"),
    ({"llamacpp": None}, "llamacpp"),
    # Names that would be something else to a shell, a file system or a web page.
    *(
        ({"configurations": [f"A1{evil}_B2"]}, "configurations")
        for evil in ("'", '"', " ", "\n", ";", "$(x)", "`x`", "|x", "&", "/../", "{1,2}", "*", "<b>", "\0", "\u202e")
    ),
    *(({"model": f"gpt2{evil}"}, "model: ") for evil in ("'; rm -rf ~ #", "\n", "../..", " ")),
    *(({"models": {evil: {"source": "hub"}}}, "models") for evil in ("a'b", "a b", "a\nb", "../a", "a;b", "")),
    *(({"sweeps.batch_size.variants": {evil: {}}}, "sweeps.batch_size.variants") for evil in ("a'b", "a\nb", "../a", "a;b", "a/b", "")),
    *(({"models.gpt2.repository": evil}, "models.gpt2.repository") for evil in ("a", "a/b/c", "a/b;c", "a/b\n", "https://x/y")),
    ({"phases": ["phase3a; true"]}, "phases"),
    ({"llamacpp.host_cache_mib": "0; true"}, "llamacpp.host_cache_mib"),
    ({"vllm.dtype": "auto --trust-remote-code"}, "vllm.dtype"),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[str(next(iter(c.items())))[:60] for c, _ in BAD])
def test_a_bad_value_is_refused_with_its_path_and_a_correction(values: Values, changes: Values, message: str) -> None:
    with pytest.raises(ColdprefixError) as caught:
        parse(with_values(values, changes))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        ({"min": 9, "max": 7, "precision": 0.1}, "  processes.min: 9 is more than max (7)"),
        ({"min": 2, "max": 7, "precision": 0.1}, "  processes.min: 2: should be greater than or equal to 3"),
        ({"min": 6, "max": 7, "precison": 0.1}, "  processes.precison: there is no such key (did you mean 'precision'?)"),
        ({"min": 6, "max": 7, "precision": 5}, "  processes.precision: 5: should be less than 1"),
        (0, "  processes: 0: should be greater than or equal to 1"),
        ("many", "  processes: 'many': should be a valid integer"),
    ],
)
def test_a_wrong_stopping_rule_is_named_by_its_own_key(values: Values, trials: Any, message: str) -> None:
    with pytest.raises(ColdprefixError) as caught:
        parse(with_values(values, {"processes": trials}))
    assert message in str(caught.value) and "function-after" not in str(caught.value)


def test_all_mistakes_are_reported_at_once(values: Values) -> None:
    with pytest.raises(ColdprefixError) as caught:
        parse(with_values(values, {"trials": 0, "vllm.dtype": "int4", "figures.column_in": 0}))
    assert all(path in str(caught.value) for path in ("trials", "vllm.dtype", "figures.column_in"))


def test_opt_runs_where_it_can(values: Values) -> None:
    parsed = parse(with_values(values, {"phase_models": {"phase1": "opt-125m", "phase2": "opt-125m-standin"}}))
    assert [parsed.model_of(Cell(p, "main", "A512_B256", "hit")) for p in parsed.phases] == [
        "opt-125m",
        "opt-125m-standin",
        "gpt2-standin",
        "gpt2-standin",
    ]


def test_phases_may_come_as_one_string_from_the_command_line(values: Values) -> None:
    assert parse(with_values(values, {"phases": "phase3a, phase3b"})).phases == ["phase3a", "phase3b"]


def test_overrides_reach_their_cells_only(values: Values) -> None:
    from coldprefix.study.plan import job_of

    parsed = parse(with_values(values, {"cells": {"phase3b/*/miss": {"trials": 30}}}))
    trials = {cell: job_of(parsed, cell).protocol.trials for cell in parsed.all_cells()}
    wanted = {c for c in trials if c.phase == "phase3b" and c.state == "miss" and c.sweep == "main"}
    assert {cell for cell, n in trials.items() if n == 30} == wanted


def test_a_sweep_changes_what_it_names_and_nothing_else(values: Values) -> None:
    from coldprefix.study.plan import job_of

    parsed = parse(values)
    jobs = {cell: job_of(parsed, cell) for cell in parsed.all_cells()}

    def batch_tokens(variant: str) -> set[int]:
        return {job.settings["batch_tokens"] for cell, job in jobs.items() if cell.variant == variant and job.engine == "llamacpp"}

    assert batch_tokens("batch_size/n64") == {64}
    assert batch_tokens("scaling") == {2048}
    assert {(cell.phase, job.protocol.request_form) for cell, job in jobs.items() if cell.variant == "request_form/chat"} == {
        ("phase1", "chat"),
        ("phase3a", "chat"),
    }
    assert len({cell.path for cell in jobs}) == len(jobs)
    main = parse(with_values(values, {"experiments": ["main"]}))
    assert {cell: job_of(main, cell) for cell in main.all_cells()} == {cell: job for cell, job in jobs.items() if cell.sweep == "main"}


def test_phases_left_out_are_left_out_of_the_sweeps_too(values: Values) -> None:
    parsed = parse(with_values(values, {"phases": ["phase2"]}))
    assert {cell.phase for cell in parsed.all_cells()} == {"phase2"}
    assert {cell.sweep for cell in parsed.all_cells()} == {"main", "scaling", "confound"}


@given(
    phases=st.lists(st.sampled_from(["phase1", "phase2", "phase3a", "phase3b"]), min_size=1, unique=True),
    states=st.lists(st.sampled_from(["hit", "miss"]), min_size=1, unique=True),
    lengths=st.lists(st.tuples(st.integers(64, 400), st.integers(64, 400)), min_size=1, max_size=5, unique=True),
)
@settings(deadline=None)
def test_any_valid_configuration_gives_exactly_the_product(phases: list[str], states: list[str], lengths: list[tuple[int, int]]) -> None:
    import yaml

    base: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
    base |= {"experiments": ["main"], "phases": phases, "states": states, "configurations": [f"A{a}_B{b}" for a, b in lengths]}
    parsed = parse(base)
    cells = parsed.all_cells()
    assert [(parsed.lengths_of(c).A, parsed.lengths_of(c).B) for c in parsed.configurations] == lengths
    assert len(set(cells)) == len(cells) == len(phases) * len(states) * len(lengths)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [", "\x00"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Any, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ColdprefixError, match=r"config\.yaml"):
        load(path)
