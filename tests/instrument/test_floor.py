"""The floor of a prefill: operations and bytes by hand, and the table of what was measured over it."""

from __future__ import annotations

import json

import polars as pl
import pytest
from conftest import ROOT

from coldprefix.errors import ColdprefixError
from coldprefix.instrument.floor import KEYS, Shape, floor_of, products_ms, shape_of, table, work_of

TINY = Shape(layers=2, width=4, heads=2, kv_heads=1, head_size=3, inner=5, gated=True, vocabulary=7)


def test_the_operations_and_bytes_of_a_tiny_model_are_those_counted_by_hand() -> None:
    assert TINY.products == ((4, 12), (6, 4), (4, 10), (5, 4))  # 2 x 3 queries and 2 x 3 keys and values; gate and up
    assert TINY.weights == 2 * (48 + 24 + 40 + 20) + 28
    work = work_of(TINY, computed=3, cached=10)
    assert work.products == 2 * (3 * 264 + 28)
    assert work.attention == 4 * 2 * 6 * (11 + 12 + 13)  # token i attends to the 10 before the prompt, those before it and itself
    assert work.bytes == 2 * (292 + 2 * 2 * 3 * 13)


def test_a_reused_prefix_costs_attention_but_no_products() -> None:
    alone, after = work_of(TINY, 100, 0), work_of(TINY, 100, 1000)
    assert after.products == alone.products and after.attention > alone.attention and after.bytes > alone.bytes
    both = work_of(TINY, 1100, 0)
    assert both.attention == pytest.approx(after.attention + work_of(TINY, 1000, 0).attention), "in two steps or in one"


def test_the_shapes_are_those_of_the_models() -> None:
    llama = shape_of(json.loads((ROOT / "src/coldprefix/models/configs/llama-3-8b-f16.json").read_text()))
    assert llama.weights + 128256 * 4096 == pytest.approx(8.03e9, rel=1e-3), "its parameters, less the norms"
    gpt2 = {"architectures": ["GPT2LMHeadModel"], "n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257}
    assert shape_of(gpt2).weights == 12 * 12 * 768**2 + 768 * 50257
    with pytest.raises(ColdprefixError, match="the floor of Mamba2ForCausalLM is not known"):
        shape_of({"architectures": ["Mamba2ForCausalLM"]})


def test_the_floor_is_the_larger_of_operations_and_bytes() -> None:
    llama = shape_of(json.loads((ROOT / "src/coldprefix/models/configs/llama-3-8b-f16.json").read_text()))
    long, short = (floor_of(work_of(llama, n, 0), tflop_s=800, gbyte_s=4000) for n in (2072, 1))
    assert long.products_ms == pytest.approx(2 * 6.98e9 * 2072 / 800e12 * 1e3, rel=0.01)
    assert long.floor_ms == long.products_ms + long.attention_ms > long.bytes_ms
    assert short.floor_ms == short.bytes_ms == pytest.approx(15.01e9 / 4000e9 * 1e3, rel=0.01)


def test_the_card_s_own_products_are_read_between_the_measured_lengths() -> None:
    points = [{"tokens": 2000, "ms": 40.0}, {"tokens": 24, "ms": 4.0}, {"tokens": 1000, "ms": 20.0}]
    assert products_ms(points, 8) == 4.0 and products_ms(points, 1500) == 30.0 and products_ms(points, 4000) == 80.0


def test_the_table_says_how_far_each_cell_is_from_its_floor() -> None:
    keys = dict(zip(KEYS, ("phase1", "main", "A512_B256", "miss"), strict=True))
    cell = {"query_evaluated_tokens": 280, "query_cached_tokens": 0, "ttft_ms": 9.0}
    rows = [keys | cell | {"query_ms": ms, "valid": valid} for ms, valid in ((5.0, True), (7.0, True), (900.0, False))]
    silent = keys | {"phase": "phase9"} | cell | {"query_evaluated_tokens": None, "query_ms": 5.0, "valid": True}
    card = {"tflop_s": 0.001, "gbyte_s": 0.001, "products": [{"tokens": 280, "ms": 2.5}]}
    (row,) = table(pl.DataFrame([*rows, silent]), TINY, card).to_dicts()
    assert (row["query_ms"], row["ttft_ms"], row["computed_tokens"], row["over_products_ms"]) == (6.0, 9.0, 280, 3.5)
    expected = floor_of(work_of(TINY, 280, 0), 0.001, 0.001)
    assert row["floor_ms"] == expected.floor_ms and row["times_floor"] == pytest.approx(6.0 / expected.floor_ms)
