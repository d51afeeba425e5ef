"""Each test of a claim: data under which the claim holds, data under which it does not, and data that decide nothing."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from claim_data import LLAMA, REFUSAL, Q, both, cell, check, frame, interfaces, own, record

from coldprefix.claims import listed
from coldprefix.claims.table import check_all
from coldprefix.study import registry

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
        (25.0, 370.0, 1.0, "refuted"),
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
        assert found["effect"] == pytest.approx(100 * client / (miss - hit), rel=0.02)
        assert found["effect_low"] < found["effect"] < found["effect_high"]
        assert found["n"] == 12
    else:
        assert "nothing to hide" in found["finding"] and found["effect"] is None


# --- C3 and C11 -----------------------------------------------------------------------------------------------------------


def batches(n64: float, phases: tuple[str, ...] = LLAMA) -> pl.DataFrame:
    sizes = {"n64": n64, "n2048": 100.0}
    return frame(*(cell(p, f"batch_size/{v}", "A256_B512", "miss", ttft_ms=ms) for p in phases for v, ms in sizes.items()))


@pytest.mark.parametrize(("n64", "verdict"), [(130.0, "refuted"), (900.0, "supported"), (811.0, "not decided")])
def test_c3_asks_whether_the_batch_size_can_make_the_original_gap(n64: float, verdict: str) -> None:
    found = check("C3", batches(n64), [record("phase3a", f"batch_size/{v}", batch_tokens=b) for v, b in (("n64", 64), ("n2048", 1024))])
    assert found["verdict"] == verdict and found["effect"] == pytest.approx(n64 / 100)
    assert "8.1 x is to be explained" in found["finding"] and "batch_tokens in force 64 and 1024" in found["finding"]


def test_c3_is_not_refuted_by_one_phase_alone_but_supported_by_one() -> None:
    assert check("C3", batches(130.0, ("phase3a",)))["verdict"] == "not decided"
    assert "phase3b/batch_size/n64/A256_B512/miss was not measured" in check("C3", batches(130.0, ("phase3a",)))["finding"]
    assert check("C3", batches(900.0, ("phase3a",)))["verdict"] == "supported"


@pytest.mark.parametrize(("chat", "verdict"), [(98.0, "refuted"), (10.0, "supported"), (900.0, "refuted")])
def test_c11_needs_chat_misses_that_are_as_much_faster(chat: float, verdict: str) -> None:
    measured = [cell("phase3a", "request_form/tokens", "A384_B256", s, ttft_ms=100.0 if s == "miss" else 10.0) for s in ("hit", "miss")]
    measured += [cell("phase3a", "request_form/chat", "A384_B256", "hit", ttft_ms=10.0)]
    measured += [cell("phase3a", "request_form/chat", "A384_B256", "miss", ttft_ms=chat, stream_cached_tokens=5)]
    found = check("C11", frame(*measured))
    assert found["verdict"] == verdict and "0 and 5 tokens reused" in found["finding"] and "hits 1 [" in found["finding"]


# --- C4 ---------------------------------------------------------------------------------------------------------------------


SAME = [record(phase, variant) for phase in LLAMA for variant in ("main", "confound/repeated")]
DIFFERENT = [record("phase3a"), record("phase3b", libraries={"libllama.so": "bb"})]


def test_c4_is_refuted_where_identical_libraries_make_the_gap_by_repetition() -> None:
    found = check("C4", interfaces(370.0, 360.0, 20.0), SAME)
    assert found["verdict"] == "refuted" and found["effect"] == pytest.approx(18, rel=0.02)
    for words in ("identical libraries", "reuses 279 of 280 tokens", "5 of them rejected", "within the margin of 10 %", "1.2 ms (phase3a)"):
        assert words in found["finding"]
    assert found["rows"] == [f"{p}/{v}/A512_B256/miss" for v in ("confound/repeated", "main") for p in ("phase3b", "phase3a")]


def test_c4_says_so_when_the_residual_is_beyond_the_margin() -> None:
    assert "beyond the margin" in check("C4", interfaces(370.0, 500.0, 20.0), SAME)["finding"]


def test_c4_is_supported_by_verified_misses_that_differ_with_the_libraries() -> None:
    assert check("C4", interfaces(20.0, 360.0, 20.0, 0), DIFFERENT)["verdict"] == "supported"
    assert check("C4", interfaces(370.0, 360.0, 20.0), DIFFERENT)["verdict"] == "refuted"


def test_c4_stays_open_where_identical_libraries_show_no_gap_or_nothing_was_repeated() -> None:
    no_gap = check("C4", interfaces(370.0, 360.0, 350.0, 0), SAME)
    assert no_gap["verdict"] == "not decided"
    fresh = interfaces(370.0, 360.0, 20.0).filter(pl.col("variant") == "main")
    assert check("C4", fresh, SAME)["verdict"] == "not decided"
    assert "confound/repeated" in check("C4", fresh, SAME)["finding"]
    assert check("C4", interfaces(370.0, 360.0, 20.0), SAME[:2])["verdict"] == "not decided"  # 3b's libraries are unknown


def test_libraries_are_compared_in_a_variant_of_a_sweep_too() -> None:
    measured = [cell(p, "slots/split_1024", "A256_B512", "miss", ttft_ms=ms) for p, ms in (("phase3a", 100.0), ("phase3b", 104.0))]
    entry = own(test="binaries_explain_gap", parameters={"variant": "slots/split_1024"}, threshold__value=8.1)
    libraries = [record(phase, "slots/split_1024") for phase in LLAMA]
    finding = check_all(listed.parse({"claims": [entry]}), frame(*measured), libraries)["finding"].item()
    assert "of phase3a's miss TTFT (A256_B512, the most different of 1)" in finding


# --- C5 -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("miss", "verdict"), [(320.0, "refuted"), (31.0, "supported"), (33.0, "not decided"), (20.0, "refuted")])
def test_c5_wants_no_degradation_in_every_phase(miss: float, verdict: str) -> None:
    found = check("C5", frame(both("phase1", 30.0, miss), both("phase2", 30.0, miss)))
    assert found["verdict"] == verdict and found["effect"] == pytest.approx(100 * (miss / 30 - 1))


def test_c5_one_phase_is_enough_to_refute_but_not_to_support() -> None:
    refuted = check("C5", frame(both("phase1", 30.0, 320.0)))
    assert refuted["verdict"] == "refuted" and "missing: phase2/main/A512_B256/hit was not measured" in refuted["finding"]
    assert check("C5", frame(both("phase1", 30.0, 31.0)))["verdict"] == "not decided"


def test_c5_tells_what_repeated_prompts_do_but_does_not_judge_by_them() -> None:
    why = [None] + 5 * ["reused 256 tokens, should be 0"]
    again: dict[str, Any] = {"query_ms": [348.0, *[50.0] * 5], "query_cached_tokens": [0, *[256] * 5]}
    repeated = cell("phase1", "confound/repeated", "A512_B256", "miss", rejection=why, query_rejection=why, **again)
    found = check("C5", frame(both("phase1", 30.0, 320.0), both("phase2", 30.0, 320.0), repeated))
    assert found["verdict"] == "refuted" and "reuses 256 of 280 tokens and takes 50 ms (5 trials, 5 of them rejected" in found["finding"]
    assert check("C5", frame(repeated))["verdict"] == "not decided"


# --- C6 -------------------------------------------------------------------------------------------------------------------


def test_c6_is_refuted_by_hits_that_reuse_the_common_prefix() -> None:
    found = check("C6", frame(*(cell(p, "main", "A512_B256", "hit") for p in LLAMA)))
    assert found["verdict"] == "refuted" and found["effect"] == 100
    assert "768 of 792 tokens, and 767 of 768 by the re-warm" in found["finding"] and "only a prefix is reused" in found["finding"]


def test_c6_can_be_supported_although_such_trials_are_all_rejected() -> None:
    nothing: dict[str, Any] = {"stream_cached_tokens": 0, "rejection": "reused 0 tokens, should be 768"}
    found = check("C6", frame(*(cell(p, "main", "A512_B256", "hit", **nothing) for p in LLAMA)))
    assert found["verdict"] == "supported" and "6 of 6 trials rejected" in found["finding"]


def test_c6_is_not_decided_by_prompts_that_are_identical() -> None:
    assert check("C6", frame(*(cell(p, "main", "A512_B256", "hit", query_prompt_tokens=768) for p in LLAMA)))["verdict"] == "not decided"


# --- C7 -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "verdict"), [(36864, "supported"), (18432, "refuted")])
def test_c7_reads_the_engine_s_own_report(value: int, verdict: str) -> None:
    found = check("C7", frame(), [record(p, kv_bytes_per_token=value) for p in LLAMA])
    assert found["verdict"] == verdict and found["effect"] == value - 36864
    assert f"{value:,} bytes reported in 1 cells, {value * 2048 / 2**20:.3g} MiB for 2048 tokens" in found["finding"]
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
    assert "takes 50 [" in found["finding"] and "slots/split_256 the engine refused the prompt in 4 of 4 trials" in found["finding"]


def test_c8_is_refuted_where_the_prefix_survives_and_open_where_the_control_lost_it() -> None:
    assert check("C8", slots(767))["verdict"] == "refuted"
    for kept in (0, 300):
        lost = check("C8", slots(0, control=kept))
        assert lost["verdict"] == "not decided" and "a control that keeps the prefix" in lost["finding"]


def test_c8_without_its_control_is_not_decided_but_tells_the_refusals() -> None:
    found = check("C8", slots(0).filter(pl.col("variant") != "slots/split_1024"))
    assert found["verdict"] == "not decided" and "refused the prompt in 4 of 4" in found["finding"]


# --- C9 -------------------------------------------------------------------------------------------------------------------


def rewarms(cheap: tuple[str, ...], phases: tuple[str, ...] = tuple(registry.phases()), variant: str = "main") -> pl.DataFrame:
    return frame(*(both(p, 7.0, 7.0 if p in cheap else 390.0, "rewarm_ms", variant) for p in phases))


def test_c9_is_refuted_as_a_whole_by_the_backends_that_do_not_pay_and_told_per_backend() -> None:
    measured = rewarms(("phase1", "phase2"))
    whole = check("C9", measured)
    assert whole["verdict"] == "refuted" and whole["effect"] == pytest.approx(1)
    assert "phase1 1 x" in whole["finding"] and "phase3b 55.7 x" in whole["finding"]
    assert "on phase3b the re-warm reused 99.9 % of [A, B] after a hit and 0 % after a miss" in whole["finding"]
    assert [check(name, measured)["verdict"] for name in ("C9a", "C9b", "C9c", "C9d")] == ["refuted", "refuted", "supported", "supported"]


def test_c9_is_supported_only_with_all_backends() -> None:
    assert check("C9", rewarms(()))["verdict"] == "supported"
    assert check("C9", rewarms((), ("phase1", "phase3a", "phase3b")))["verdict"] == "not decided"


def test_c9_tells_the_host_tier_apart() -> None:
    measured = pl.concat([rewarms((), ("phase3a",), "host_tier/off"), rewarms(("phase3a",), ("phase3a",), "host_tier/on")])
    assert (check("C9e", measured)["verdict"], check("C9f", measured)["verdict"]) == ("supported", "refuted")


# --- C10 ------------------------------------------------------------------------------------------------------------------

LENGTHS = (8, 104, 232, 360, 488, 512, 616, 744, 904)


def scaling(
    bend: dict[int, float] | None = None, phases: tuple[str, ...] = tuple(registry.phases()), lengths: tuple[int, ...] = LENGTHS
) -> pl.DataFrame:
    """TTFT of 10 ms and 1 ms a token, times ``bend`` at a length."""
    factors = bend or {}
    return frame(*(cell(p, "scaling", f"A16_B{b}", "miss", ttft_ms=factors.get(b, 1.0) * (10.0 + b + Q)) for p in phases for b in lengths))


def test_c10_is_supported_by_a_line_on_every_backend() -> None:
    found = check("C10", scaling())
    assert found["verdict"] == "supported" and found["effect"] > 0.999 and found["n"] == 4 * 9 * 6
    assert "ms a token" in found["finding"] and "not judged" in found["finding"]


def test_c10_is_refuted_by_a_bend_that_r2_would_not_see() -> None:
    found = check("C10", scaling({104: 1.25}))
    assert found["effect"] > 0.99 and found["verdict"] == "refuted"
    assert "beyond 10 % at 128 tokens, so the line bends although R2 passes" in found["finding"]


def test_c10_is_refuted_by_a_scatter_without_a_line() -> None:
    found = check("C10", scaling(dict(zip(LENGTHS, (9.0, 3.0, 1.5, 1.0, 0.7, 0.7, 0.6, 0.4, 0.3), strict=True))))
    assert found["verdict"] == "refuted" and found["effect"] < 0.9


def test_c10_is_not_decided_by_two_lengths_or_without_a_phase() -> None:
    two = check("C10", scaling(lengths=(104, 904)))
    assert two["verdict"] == "not decided" and "2 lengths" in two["finding"]
    assert check("C10", scaling(phases=("phase1", "phase2")))["verdict"] == "not decided"


# --- claims that users add ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relation", "tokens", "verdict"), [("equals", 767, "supported"), ("equals", 768, "refuted"), ("at_most", 10, "refuted")]
)
def test_a_user_s_claim_about_reuse(relation: str, tokens: float, verdict: str) -> None:
    parameters = {"phases": ["phase3a"], "state": "hit", "step": "rewarm", "relation": relation}
    entry = own(test="reuse", parameters=parameters, threshold={"value": tokens, "unit": "tokens", "reason": "Counted by the engine."})
    trials = frame(cell("phase3a", "main", "A512_B256", "hit"))
    assert check_all(listed.parse({"claims": [entry]}), trials, [])["verdict"].item() == verdict
