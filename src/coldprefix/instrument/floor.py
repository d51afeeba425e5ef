"""The least time that a prefill can take: from the operations and bytes of a model's config.json, and from what the very card does of either.

The roofline of Williams, Waterman and Patterson (2009): no version runs faster than its operations at the card's rate, nor than its bytes at
the card's bandwidth. Dense decoders with full attention: Llama's and GPT-2's kinds. Standard library and polars only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import polars as pl

from coldprefix.errors import ColdprefixError


class Shape(NamedTuple):
    """A dense decoder. ``gated``: its feed-forward part has a gate, so three products in the place of two."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    gated: bool
    vocabulary: int

    @property
    def products(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of the matrix products of a layer: queries, keys and values; attention's output; feed-forward up and down."""
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        up = self.inner * (2 if self.gated else 1)
        return (self.width, queries + 2 * keys), (queries, self.width), (self.width, up), (self.inner, self.width)

    @property
    def weights(self) -> int:
        """Values in all matrix products, the output's included."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.products) + self.width * self.vocabulary


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json tells.

    Raises:
        ColdprefixError: it is of another kind (experts, states, latent attention), for which this arithmetic does not hold.
    """
    kind = (config.get("architectures") or ["none"])[0]
    if kind == "GPT2LMHeadModel":
        width, heads = config["n_embd"], config["n_head"]
        inner = config.get("n_inner") or 4 * width
        return Shape(config["n_layer"], width, heads, heads, width // heads, inner, False, config["vocab_size"])
    if kind in ("LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM"):
        width, heads = config["hidden_size"], config["num_attention_heads"]
        kv_heads, head_size = config.get("num_key_value_heads") or heads, config.get("head_dim") or width // heads
        sizes = config["num_hidden_layers"], width, heads, kv_heads, head_size, config["intermediate_size"]
        return Shape(*sizes, True, config["vocab_size"])
    raise ColdprefixError(f"the floor of {kind} is not known: only dense decoders with full attention, as Llama and GPT-2")


class Work(NamedTuple):
    """What a prefill does at the least: operations (a multiplication and an addition are two) and bytes of the card's memory."""

    products: float
    attention: float
    bytes: float


def work_of(shape: Shape, computed: int, cached: int, width_bytes: int = 2) -> Work:
    """The work of computing ``computed`` tokens after ``cached`` ones and of the logits of the last.

    Each token is multiplied with all weights but the output's, which only the last one is; it attends to all before it and to itself. Weights
    and cached keys and values are read once, new keys and values written once.
    """
    output = shape.width * shape.vocabulary
    products = 2.0 * ((shape.weights - output) * computed + output)
    pairs = computed * cached + computed * (computed + 1) / 2
    attention = 4.0 * shape.layers * shape.heads * shape.head_size * pairs
    kept = 2.0 * shape.layers * shape.kv_heads * shape.head_size * (cached + computed)
    return Work(products, attention, width_bytes * (shape.weights + kept))


class Floor(NamedTuple):
    """In ms: of the matrix products, of attention, both at the card's best rate; of the bytes; and the floor, the larger of operations and bytes."""

    products_ms: float
    attention_ms: float
    bytes_ms: float
    floor_ms: float


def floor_of(work: Work, tflop_s: float, gbyte_s: float) -> Floor:
    """The least time of a prefill on a card with these measured rates: 1e12 operations and 1e9 bytes per second."""
    products, attention = work.products / tflop_s / 1e9, work.attention / tflop_s / 1e9
    moved = work.bytes / gbyte_s / 1e6
    return Floor(products, attention, moved, max(products + attention, moved))


KEYS = ["phase", "variant", "configuration", "state"]


def table(trials: pl.DataFrame, shape: Shape, card: Mapping[str, Any]) -> pl.DataFrame:
    """Each cell's times over its floor: a row for each phase, variant, configuration and state, of valid trials.

    Columns beside the keys: computed and cached tokens (medians); query_ms, the median time of the one-token answer that is not streamed, which
    is the prefill and nothing after it; ttft_ms, that of the streamed first token; those of `Floor`; `measured_products_ms`, what the card took for
    the matrix products of the nearest length that was measured, scaled to this one; times_floor, query_ms over floor_ms; over_products_ms, query_ms
    less measured_products_ms: attention, launches, and what surrounds them.

    Args:
        card: what workflow/scripts/measure_card.py wrote: tflop_s, gbyte_s and products [{tokens, ms}].
    """
    rows = []
    valid = trials.filter("valid")
    for keys, cell in valid.group_by(KEYS, maintain_order=True):
        told = cell.select(pl.col("query_evaluated_tokens", "query_cached_tokens", "query_ms", "ttft_ms").median()).row(0)
        if any(value is None for value in told):
            continue
        computed, cached, query_ms, ttft_ms = told
        floor = floor_of(work_of(shape, round(computed), round(cached)), card["tflop_s"], card["gbyte_s"])
        products = products_ms(card["products"], computed)
        named = dict(zip(KEYS, keys, strict=True)) | {"computed_tokens": computed, "cached_tokens": cached}
        rows.append(
            named
            | {"query_ms": query_ms, "ttft_ms": ttft_ms}
            | floor._asdict()
            | {"measured_products_ms": products, "times_floor": query_ms / floor.floor_ms, "over_products_ms": query_ms - products}
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def products_ms(measured: Sequence[Mapping[str, Any]], tokens: float) -> float:
    """Time of all layers' matrix products for ``tokens`` tokens, ms: between two measured lengths by a straight line; beyond the longest in
    proportion, and below the shortest that of the shortest, which is the time of reading the weights."""
    points = sorted((point["tokens"], point["ms"]) for point in measured)
    if tokens <= points[0][0]:
        return float(points[0][1])
    for (n, ms), (more, more_ms) in pairwise(points):
        if tokens <= more:
            return float(ms + (more_ms - ms) * (tokens - n) / (more - n))
    return float(points[-1][1] * tokens / points[-1][0])
