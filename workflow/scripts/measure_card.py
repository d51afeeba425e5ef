"""Measure what a CUDA card does at the most, at the shapes of a model's prefill. Runs in envs/vllm-cuda, whose torch vLLM computes with.

    python measure_card.py --model FOLDER --out card.json [--tokens 24,256,...]

Writes: the card and its driver, clocks and power before and after; gbyte_s, of a copy within its memory, bytes read and written counted;
products, for each number of tokens the median time of all layers' matrix products (random float16 values, distinct weights for each layer, one
CUDA graph, so no launch is between them) and their rate; tflop_s, the best rate seen, of these or of a product of 8192^3.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

import torch

from coldprefix.files import write_json
from coldprefix.instrument.floor import shape_of
from coldprefix.measure.gpu_state import GpuState
from coldprefix.measure.provenance import gpus
from coldprefix.process.program import run_main

TOKENS = (1, 24, 64, 256, 512, 1024, 1048, 2048, 2072, 4096, 8024)
COPIED_BYTES = 4 * 2**30
WARMING, TIMED = 3, 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder with its config.json")
    parser.add_argument("--tokens", type=lambda text: [int(n) for n in text.split(",")], default=list(TOKENS))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    shape = shape_of(json.loads((arguments.model / "config.json").read_text()))
    state, at = GpuState(), {"process": None, "order": None}
    record: dict[str, Any] = {
        "gpus": gpus(),
        "before": state.after(at),
        "dtype": "float16",
        "torch": torch.__version__,
        "shape": shape._asdict(),
    }
    record["gbyte_s"] = copy_rate()
    weights = [[values(*product) for product in shape.products] for _ in range(shape.layers)]
    record["products"] = [products_of(weights, tokens) for tokens in arguments.tokens]
    square = values(8192, 8192)
    other = values(8192, 8192)
    record["square_tflop_s"] = 2 * 8192**3 / median_ms(lambda: square @ other) / 1e9
    record["tflop_s"] = max(record["square_tflop_s"], *(point["tflop_s"] for point in record["products"]))
    write_json(arguments.out, record | {"after": state.after(at)})
    print(f"{record['tflop_s']:.0f} TFLOP/s, {record['gbyte_s']:.0f} GB/s")


def values(inputs: int, outputs: int) -> torch.Tensor:
    """Random: a product of zeros takes less power, and runs faster than one of weights."""
    return torch.randn(inputs, outputs, device="cuda", dtype=torch.float16) * 0.02


def copy_rate() -> float:
    """1e9 bytes read and written per second."""
    one = torch.empty(COPIED_BYTES, device="cuda", dtype=torch.uint8).random_()
    other = torch.empty_like(one)
    return 2 * COPIED_BYTES / median_ms(lambda: other.copy_(one)) / 1e6


def products_of(weights: list[list[torch.Tensor]], tokens: int) -> dict[str, float]:
    """Time and rate of the products of all layers with ``tokens`` rows."""
    rows = {w.shape[0]: values(tokens, w.shape[0]) for w in weights[0]}
    results = [torch.empty(tokens, w.shape[1], device="cuda", dtype=torch.float16) for w in weights[0]]

    def work() -> None:
        for layer in weights:
            for weight, result in zip(layer, results, strict=True):
                torch.mm(rows[weight.shape[0]], weight, out=result)

    work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    ms = median_ms(graph.replay)
    operations = 2 * tokens * sum(w.numel() for layer in weights for w in layer)
    return {"tokens": tokens, "ms": ms, "tflop_s": operations / ms / 1e9}


def median_ms(work: Callable[[], Any]) -> float:
    """By the card's own events, after WARMING runs."""
    for _ in range(WARMING):
        work()
    times = []
    for _ in range(TIMED):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return float(statistics.median(times))


if __name__ == "__main__":
    run_main(main)
