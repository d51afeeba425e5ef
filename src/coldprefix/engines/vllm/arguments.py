"""What `vllm serve` and `LLM` have in common: settings, environment, and how they are read back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from coldprefix.engines.vllm.engine import settings_of
from coldprefix.errors import ColdprefixError
from coldprefix.files import read_json
from coldprefix.job import Job
from coldprefix.process.server import clean_environment


def arguments(job: Job) -> dict[str, Any]:
    """Engine arguments by their Python names; the command line's are the same with dashes."""
    settings = settings_of(job)
    dtype = _dtype_of(job.accelerator) if settings.dtype == "auto" else settings.dtype
    context = settings.context_of(job.model.positions)
    result: dict[str, Any] = {
        "dtype": dtype,
        "max_model_len": context,
        "max_num_batched_tokens": settings.batch_tokens,
        "max_num_seqs": settings.sequences,
        "enable_prefix_caching": settings.prefix_caching,
        "enforce_eager": settings.enforce_eager,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "seed": 0,
    }
    if settings.block_tokens != "auto":
        result["block_size"] = settings.block_tokens
    if settings.kv_dtype != "auto":
        result["kv_cache_dtype"] = settings.kv_dtype
    if settings.retention_tokens:
        result["prefix_cache_retention_interval"] = None if settings.retention_tokens == "all" else settings.retention_tokens
    if not settings.hybrid_manager:
        result["disable_hybrid_kv_cache_manager"] = True
    if job.accelerator == "cuda":
        result["kv_cache_memory_bytes"] = settings.kv_cache_gib * 2**30
    return result


def _dtype_of(accelerator: str) -> str:
    """16 bits where the hardware computes with them: a CPU without such instructions emulates them, far slower than 32 bits."""
    if accelerator == "cuda":
        return "float16"
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        flags = set()
    return "bfloat16" if flags & {"avx512_bf16", "amx_bf16", "bf16"} else "float32"


def environment(job: Job) -> dict[str, str]:
    """Environment of the engine. Snakemake exports OMP_NUM_THREADS and the like; here they follow from the configuration."""
    threads = str(job.threads)
    cores = sorted(os.sched_getaffinity(0))[: job.threads]
    extra = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "VLLM_SERVER_DEV_MODE": "1",  # /reset_prefix_cache and /server_info
    }
    if job.accelerator == "cpu":
        extra["VLLM_CPU_KVCACHE_SPACE"] = str(settings_of(job).kv_cache_gib)
        extra["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))  # "auto" would leave one core idle
    return clean_environment(extra)


def layers_of(config: dict[str, Any]) -> str:
    """What kinds of layers a model's config.json names: "full" attention only, some with a "window", or some with "states"."""
    config = config.get("text_config") or config
    kinds = set(config.get("layer_types") or config.get("layers_block_type") or ())
    if any(kind in str(kinds) for kind in ("linear", "mamba", "conv", "recurrent")) or "mamba" in str(config.get("model_type")):
        return "states"
    windows = config.get("sliding_window") and config.get("use_sliding_window") is not False
    return "window" if "sliding_attention" in kinds or (windows and not kinds) else "full"


def settings_in_force(config: dict[str, Any], job: Job, model: Path) -> dict[str, Any]:
    """The settings that count, from vLLM's own VllmConfig as JSON (vllm/config/vllm.py), and the kinds of the model's layers, which it does
    not hold, from the config.json in the folder ``model`` that it was started with.

    Raises:
        ColdprefixError: a field is missing, as after an upgrade that renamed it.
    """
    try:
        own, cache, scheduler = config["model_config"], config["cache_config"], config["scheduler_config"]
        blocks, block_tokens = cache["num_gpu_blocks"], cache["block_size"]
        pool = cache["kv_cache_memory_bytes"]
        return {
            "context_tokens": own["max_model_len"],
            "batch_tokens": scheduler["max_num_batched_tokens"],
            "slots": scheduler["max_num_seqs"],
            "chunked_prefill": scheduler["enable_chunked_prefill"],
            "async_scheduling": scheduler["async_scheduling"],
            "prefix_caching": cache["enable_prefix_caching"],
            "block_tokens": block_tokens,
            "blocks": blocks,
            # The pool is cut into whole blocks and vLLM does not report a block's bytes, so this is an upper bound.
            "kv_bytes_per_token_at_most": pool // (blocks * block_tokens) if pool and blocks else None,
            "kv_dtype": cache["cache_dtype"],
            "retention_tokens": "all" if (kept := cache["prefix_cache_retention_interval"]) is None else kept,
            "hybrid_manager": not scheduler["disable_hybrid_kv_cache_manager"],
            "layers": layers_of(read_json(model / "config.json")),
            "dtype": str(own["dtype"]).removeprefix("torch."),
            "enforce_eager": own["enforce_eager"],
            "threads": job.threads,
        }
    except (KeyError, TypeError) as error:
        raise ColdprefixError(
            f"vLLM's configuration has no field {error}; has it been renamed? Look at engines/vllm/arguments.py"
        ) from None
