"""Models that the preflight once refused without a reason."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine
# A context that is no multiple of 256, which llama.cpp pads and llama-server caps; random weights in 4 bits, which are not near their reference.
CONFIG = """
phases: [phase3a, phase3b]
configurations: [A256_B128]
experiments: [main]
phase_models: {phase3a: odd, phase3b: small}
models:
  odd: {source: standin, architecture: GPT2LMHeadModel, layers: 2, width: 128, heads: 2, positions: 640, vocabulary: 50257, seed: 1}
  small: {source: shapes, config: src/coldprefix/models/configs/llama-tiny.json, seed: 1, quantise: Q4_K_M}
"""


def test_an_odd_context_and_quantised_random_weights_run(
    snakemake: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "my.yaml").write_text(CONFIG)
    records = [tmp_path / f"results/preflight/{phase}.json" for phase in ("phase3a", "phase3b")]
    targets = [str(record.relative_to(tmp_path)) for record in records]
    done = snakemake(tmp_path, *targets, "--configfile", str(tmp_path / "my.yaml"))
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    odd, small = (json.loads(record.read_text()) for record in records)
    assert odd["in_force"]["context_tokens"] == 768
    assert small["reference"]["difference"] > small["reference"]["of_another_prompt"] / 2, "a reference that it would be refused by"
