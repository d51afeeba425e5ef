"""Each test of a claim: data under which the claim holds, data under which it does not, and data that decide nothing."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from claim_data import GTX, LLAMA, REFUSAL, both, cell, check, frame, interfaces, own, record

from coldprefix.claims import listed
from coldprefix.claims.table import check_all

# --- C1 -------------------------------------------------------------------------------------------------------------------


def test_c1_is_refuted_by_the_converter_s_refusal_with_its_words() -> None:
    found = check("C1", frame(), converter=REFUSAL)
    assert found["verdict"] == "refuted" and "Model OPTForCausalLM is not supported" in found["finding"] and found["effect"] == 1


def test_c1_needs_a_trial_of_opt_beside_a_converter_that_accepts() -> None:
    accepts = REFUSAL | {"returncode": 0, "message": "Model successfully exported"}
    assert check("C1", frame(), converter=accepts)["verdict"] == "not decided"
    ran = check("C1", frame(cell("phase3a", "main", "A512_B256", "hit", model="opt-125m-standin", ttft_ms=9.0)), converter=accepts)
    assert ran["verdict"] == "supported" and "phase3a/main/A512_B256/hit" in ran["rows"]
    on_vllm = frame(cell("phase1", "main", "A512_B256", "hit", model="opt-125m-standin", ttft_ms=9.0))
    assert check("C1", on_vllm, converter=accepts)["verdict"] == "not decided"


@pytest.mark.parametrize("change", [{"message": "ModuleNotFoundError: No module named 'torch'"}, {"architecture": "LlamaForCausalLM"}])
def test_c1_is_not_decided_by_a_converter_that_failed_for_another_reason(change: dict[str, str]) -> None:
    assert check("C1", frame(), converter=REFUSAL | change)["verdict"] == "not decided"


# --- C2 -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hit", "miss", "client", "verdict"),
    [
        (25.0, 370.0, 1.0, "contradicted here"),
        (60.0, 80.0, 55.0, "supported"),
        (25.0, 125.0, 30.0, "not decided"),
        (25.0, 125.0, 9.9, "not decided"),
        (50.0, 50.0, 1.0, "not decided"),
    ],
)
def test_c2_compares_the_overhead_with_the_cost(hit: float, miss: float, client: float, verdict: str) -> None:
    found = check("C2", frame(both("phase3a", hit, miss, client_ms=client)))
    assert found["verdict"] == verdict
    if hit != miss:
        assert found["effect"] == pytest.approx(100 * client / (miss - hit), rel=0.05)
        assert found["effect_low"] < found["effect"] < found["effect_high"]
        assert found["n"] == 24
    else:
        assert "nothing to hide" in found["finding"] and found["effect"] is None


# --- C3 -------------------------------------------------------------------------------------------------------------------


def batches(n64: float, phases: tuple[str, ...] = LLAMA) -> pl.DataFrame:
    sizes = {"n64": n64, "n2048": 100.0}
    return frame(*(cell(p, f"batch_size/{v}", "A256_B512", "miss", ttft_ms=ms) for p in phases for v, ms in sizes.items()))


@pytest.mark.parametrize(("n64", "verdict"), [(130.0, "contradicted here"), (900.0, "supported"), (200.0, "not decided")])
def test_c3_asks_whether_the_batch_size_can_make_misses_twice_as_slow(n64: float, verdict: str) -> None:
    found = check("C3", batches(n64), [record("phase3a", f"batch_size/{v}", batch_tokens=b) for v, b in (("n64", 64), ("n2048", 1024))])
    assert found["verdict"] == verdict and found["effect"] == pytest.approx(n64 / 100)
    assert "in different jobs" in found["finding"] and "batch_tokens in force 64 and 1024" in found["finding"]


def test_c3_is_not_contradicted_by_one_phase_alone_but_supported_by_one() -> None:
    assert check("C3", batches(130.0, ("phase3a",)))["verdict"] == "not decided"
    assert "phase3b/batch_size/n64/A256_B512/miss was not measured" in check("C3", batches(130.0, ("phase3a",)))["finding"]
    assert check("C3", batches(900.0, ("phase3a",)))["verdict"] == "supported"


# --- C4 ---------------------------------------------------------------------------------------------------------------------


SAME = [record(phase, variant) for phase in LLAMA for variant in ("main", "confound/repeated")]
DIFFERENT = [record("phase3a"), record("phase3b", libraries={"libllama.so": "bb"})]


def test_c4_is_refuted_where_the_phases_did_not_compute_the_same() -> None:
    found = check("C4", interfaces(370.0, 360.0, 20.0), SAME)
    assert found["verdict"] == "refuted" and found["effect"] == pytest.approx(100 * 279 / 280) and found["unit"] == "%"
    for words in ("identical libraries", "reuses 279 of 280 tokens", "9 of them rejected", "did not compute the same thing"):
        assert words in found["finding"]
    assert found["rows"][:2] == [f"{p}/confound/repeated/A512_B256/miss" for p in LLAMA]


@pytest.mark.parametrize("repeated", [20.0, 370.0])
@pytest.mark.parametrize("libraries", [SAME, DIFFERENT])
def test_c4_is_decided_by_counts_whatever_the_times(repeated: float, libraries: list[dict[str, Any]]) -> None:
    assert check("C4", interfaces(370.0, 360.0, repeated), libraries)["verdict"] == "refuted"


def test_c4_is_supported_by_verified_misses_that_differ_with_the_libraries_in_the_same_computation() -> None:
    assert check("C4", interfaces(20.0, 360.0, 20.0, 0), DIFFERENT)["verdict"] == "supported"
    assert check("C4", interfaces(20.0, 360.0, 20.0, 0), SAME)["verdict"] == "not decided"
    assert check("C4", interfaces(370.0, 370.0, 370.0, 0), DIFFERENT)["verdict"] == "not decided"


def test_c4_tells_how_much_slower_fresh_misses_are_and_that_they_were_apart() -> None:
    finding = check("C4", interfaces(370.0, 500.0, 20.0), SAME)["finding"]
    assert "beyond the margin" in finding and "minutes apart" in finding
    assert "within the margin of 10 %" in check("C4", interfaces(370.0, 370.0, 20.0), SAME)["finding"]


def test_c4_stays_open_where_nothing_was_repeated_or_libraries_are_unknown() -> None:
    fresh = interfaces(370.0, 360.0, 20.0).filter(pl.col("variant") == "main")
    assert check("C4", fresh, SAME)["verdict"] == "not decided"
    assert "confound/repeated" in check("C4", fresh, SAME)["finding"]
    assert check("C4", interfaces(370.0, 360.0, 20.0), SAME[:2])["verdict"] == "not decided"  # 3b's libraries are unknown


# --- C5 -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("miss", "verdict"), [(320.0, "refuted"), (31.0, "supported"), (33.0, "not decided"), (20.0, "refuted")])
def test_c5_wants_no_degradation_in_every_phase(miss: float, verdict: str) -> None:
    on_its_hardware = [record(p, gpu=GTX) for p in ("phase1", "phase2")]
    found = check("C5", frame(both("phase1", 30.0, miss), both("phase2", 30.0, miss)), on_its_hardware)
    assert found["verdict"] == verdict and found["effect"] == pytest.approx(100 * (miss / 30 - 1), rel=0.01, abs=0.1)
    assert "ms a token computed more" in found["finding"]


def test_c5_tells_what_repeated_prompts_do_but_is_not_decided_by_them_and_c5a_is() -> None:
    why = [None] + 3 * ["reused 256 tokens, should be 0"]
    again: dict[str, Any] = {"content": "repeated", "query_ms": [348.0, *[50.0] * 3], "query_cached_tokens": [0, *[256] * 3]}
    repeated = [
        cell(p, "confound/repeated", "A512_B256", "miss", rejection=why, query_rejection=why, **again) for p in ("phase1", "phase2")
    ]
    found = check("C5", frame(*repeated))
    assert (
        found["verdict"] == "not decided" and "reuses 256 of 280 tokens and takes 50 ms (9 trials, 9 of them rejected" in found["finding"]
    )
    counted = check("C5a", frame(*repeated))
    assert counted["verdict"] == "refuted" and counted["effect"] == pytest.approx(100 * 256 / 280)
    assert "256 of 280 tokens in 50 ms, 9 of 9 trials rejected" in counted["finding"] and "from trial 2 on" in counted["finding"]
    still = [cell(p, "confound/repeated", "A512_B256", "miss", query_ms=348.0) for p in ("phase1", "phase2")]
    assert check("C5a", frame(*still))["verdict"] == "supported"


def test_c5a_leaves_out_the_first_trial_of_each_process_which_is_a_true_miss() -> None:
    again: dict[str, Any] = {"n": 2, "starts": (1.0,) * 6, "query_cached_tokens": [0, 256]}
    found = check("C5a", frame(*(cell(p, "confound/repeated", "A512_B256", "miss", **again) for p in ("phase1", "phase2"))))
    assert found["effect"] == pytest.approx(100 * 256 / 280) and found["n"] == 12


# --- C6 and C11: what is reused -------------------------------------------------------------------------------------------


def test_c6a_is_refuted_by_the_re_warm_that_reuses_part_of_a_longer_prompt() -> None:
    found = check("C6a", frame(*(cell(p, "main", "A512_B256", "hit") for p in LLAMA)))
    assert found["verdict"] == "refuted" and found["effect"] == pytest.approx(100 * 767 / 768)
    assert "767 of 768 tokens" in found["finding"]


def test_c6a_can_be_supported_although_such_trials_are_all_rejected() -> None:
    nothing: dict[str, Any] = {"rewarm_cached_tokens": 0, "rejection": "reused 0 tokens, should be 768"}
    found = check("C6a", frame(*(cell(p, "main", "A512_B256", "hit", **nothing) for p in LLAMA)))
    assert found["verdict"] == "supported" and "12 of 12 trials rejected" in found["finding"]


@pytest.mark.parametrize(("reused", "verdict"), [(0, "supported"), (256, "refuted")])
def test_c6b_asks_whether_what_lies_elsewhere_in_the_cache_is_reused(reused: int, verdict: str) -> None:
    why: dict[str, Any] = {"rejection": f"reused {reused} tokens, should be 0"} if reused else {}
    found = check("C6b", frame(*(cell(p, "main", "A512_B256", "miss", stream_cached_tokens=reused, **why) for p in LLAMA)))
    assert found["verdict"] == verdict and f"{reused} of 280 tokens" in found["finding"]


@pytest.mark.parametrize(("reused", "ms", "verdict"), [(5, 98.0, "refuted"), (5, 10.0, "refuted"), (270, 98.0, "supported")])
def test_c11_is_decided_by_what_chat_misses_reuse_whatever_their_times(reused: int, ms: float, verdict: str) -> None:
    forms = {"tokens": (0, 100.0), "chat": (reused, ms)}
    measured = [
        cell("phase3a", f"request_form/{form}", "A384_B256", "miss", ttft_ms=own_ms, stream_cached_tokens=own_reused)
        for form, (own_reused, own_ms) in forms.items()
    ]
    found = check("C11", frame(*measured))
    assert found["verdict"] == verdict and f"{reused} of 280 tokens" in found["finding"]
    assert "beside it, phase3a/request_form/tokens/A384_B256/miss: 0 of 280 tokens in 100 ms" in found["finding"]


# --- C7 -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "verdict"), [(36864, "supported"), (18432, "refuted")])
def test_c7_reads_the_engine_s_own_report(value: int, verdict: str) -> None:
    found = check("C7", frame(), [record(p, kv_bytes_per_token=value) for p in LLAMA])
    assert found["verdict"] == verdict and found["effect"] == value - 36864
    assert f"{value:,} bytes reported in 1 cells, that is {value * 2048 / 2**20:.3g} MiB for 2048 tokens by arithmetic" in found["finding"]
    assert "this model can use 1024" in found["finding"]


def test_c7_is_not_decided_by_another_model() -> None:
    found = check("C7", frame(), [record(p, model="gpt2-tiny", kv_bytes_per_token=1024) for p in LLAMA])
    assert found["verdict"] == "not decided" and "ran gpt2-tiny" in found["finding"]


# --- C8 -------------------------------------------------------------------------------------------------------------------


def slots(shared: int, control: int = 767) -> pl.DataFrame:
    """Re-warms where 4 slots share 1024 cells and where each has its own, and slots too small for the prompt."""
    ms = {0: 350.0, 300: 200.0, 767: 7.0}
    why = "the engine refused: the prompt exceeds the context"
    return frame(
        cell("phase3a", "slots/unified_1024", "A256_B512", "miss", rewarm_cached_tokens=shared, rewarm_ms=ms[shared]),
        cell("phase3a", "slots/split_1024", "A256_B512", "miss", rewarm_cached_tokens=control, rewarm_ms=ms[control]),
        cell("phase3a", "slots/split_256", "A256_B512", "miss", n=4, rejection=why, query_cached_tokens=None),
    )


def test_c8_is_supported_where_the_re_warm_finds_nothing_and_the_control_all() -> None:
    found = check("C8", slots(0))
    assert found["verdict"] == "supported" and found["effect"] == 100
    assert "takes 50 [" in found["finding"] and "slots/split_256 the engine refused the prompt in 12 of 12 trials" in found["finding"]


def test_c8_is_refuted_where_the_prefix_survives_and_open_where_the_control_lost_it() -> None:
    assert check("C8", slots(767))["verdict"] == "refuted"
    for kept in (0, 300):
        lost = check("C8", slots(0, control=kept))
        assert lost["verdict"] == "not decided" and "a control that keeps the prefix" in lost["finding"]


def test_c8_without_its_control_is_not_decided_but_tells_the_refusals() -> None:
    found = check("C8", slots(0).filter(pl.col("variant") != "slots/split_1024"))
    assert found["verdict"] == "not decided" and "refused the prompt in 12 of 12" in found["finding"]


# --- claims that users add ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relation", "tokens", "verdict"), [("equals", 767, "supported"), ("equals", 768, "refuted"), ("at_most", 10, "refuted")]
)
def test_a_user_s_claim_about_reuse(relation: str, tokens: float, verdict: str) -> None:
    parameters = {"phases": ["phase3a"], "state": "hit", "step": "rewarm", "relation": relation}
    entry = own(test="reuse", parameters=parameters, threshold={"value": tokens, "unit": "tokens", "reason": "Counted by the engine."})
    trials = frame(cell("phase3a", "main", "A512_B256", "hit"))
    assert check_all(listed.parse({"claims": [entry]}), trials, [])["verdict"].item() == verdict
