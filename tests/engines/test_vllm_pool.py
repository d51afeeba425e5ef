"""What vLLM is started with, and how it is read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coldprefix.engines.vllm.arguments import arguments, environment, settings_in_force
from coldprefix.job import Job
from coldprefix.setup import building

MakeJob = Callable[..., Job]
CPU = {"accelerator": "cpu", "experiments": ["main"]}


def test_a_pool_is_only_made_small_where_that_is_asked_for(make_job: MakeJob) -> None:
    assert not {"num_gpu_blocks_override", "mamba_cache_mode"} & arguments(make_job("phase2", "hit", CPU)).keys()
    asked = arguments(make_job("phase2", "hit", CPU | {"vllm.pool_blocks": 64, "vllm.mamba_mode": "align"}))
    assert (asked["num_gpu_blocks_override"], asked["mamba_cache_mode"]) == (64, "align")


def test_what_torch_compiles_is_kept_in_the_cache_and_not_in_the_temporary_folder(make_job: MakeJob) -> None:
    assert Path(environment(make_job("phase2", "hit", CPU))["TORCHINDUCTOR_CACHE_DIR"]).is_relative_to(building.CACHE)


@pytest.mark.parametrize(("override", "told"), [(None, ("auto", 4096)), (64, (64, None))])
def test_of_a_small_pool_the_memory_that_was_allowed_says_nothing(
    make_job: MakeJob, tmp_path: Path, override: int | None, told: tuple[Any, int | None]
) -> None:
    windows = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 512}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": windows}))
    cache: dict[str, Any] = {
        "num_gpu_blocks": 64,
        "block_size": 32,
        "kv_cache_memory_bytes": 64 * 32 * 4096,
        "num_gpu_blocks_override": override,
    }
    cache |= {"enable_prefix_caching": True, "cache_dtype": "auto", "prefix_cache_retention_interval": 0, "mamba_cache_mode": "none"}
    scheduler = {"max_num_batched_tokens": 2048, "max_num_seqs": 1, "enable_chunked_prefill": True, "async_scheduling": False}
    config = {
        "model_config": {"max_model_len": 1024, "dtype": "torch.bfloat16", "enforce_eager": True},
        "cache_config": cache,
        "scheduler_config": scheduler | {"disable_hybrid_kv_cache_manager": False},
    }
    found = settings_in_force(config, make_job("phase2", "hit", CPU), tmp_path)
    assert (found["pool_blocks"], found["kv_bytes_per_token_at_most"]) == told and found["blocks"] == 64
    assert (found["layers"], found["window"]) == ("window", 512), "what vLLM does not hold is read from the model"
