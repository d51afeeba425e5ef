"""What `vllm serve` and `LLM` have in common: settings, environment, and how they are read back."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from coldprefix.engines.vllm.engine import settings_of
from coldprefix.errors import ColdprefixError
from coldprefix.files import read_json
from coldprefix.job import Job
from coldprefix.process.server import clean_environment
from coldprefix.setup import building

# Steps of up to so many tokens run as CUDA graphs. vLLM's own choice follows from the most sequences at once: 512 for the 256 that it is served
# with, but 2 for the one that is measured here, and a hit, which computes a few dozen, would be the one step that no server takes.
GRAPH_TOKENS = 512


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
        "enforce_eager": is_eager(job),
        "trust_remote_code": False,
        "load_format": "safetensors",
        "seed": 0,
    }
    if settings.block_tokens != "auto":
        result["block_size"] = settings.block_tokens
    if settings.pool_blocks != "auto":
        result["num_gpu_blocks_override"] = settings.pool_blocks
    if settings.mamba_mode != "auto":
        result["mamba_cache_mode"] = settings.mamba_mode
    if settings.kv_dtype != "auto":
        result["kv_cache_dtype"] = settings.kv_dtype
    if settings.retention_tokens:
        result["prefix_cache_retention_interval"] = None if settings.retention_tokens == "all" else settings.retention_tokens
    if not settings.hybrid_manager:
        result["disable_hybrid_kv_cache_manager"] = True
    if settings.async_scheduling != "auto":
        result["async_scheduling"] = settings.async_scheduling
    if job.accelerator == "cuda":
        result["kv_cache_memory_bytes"] = settings.kv_cache_gib * 2**30
        # The pool has its size; this share of the card must only be free at the start. vLLM's own, nine tenths, would refuse the second of the
        # servers that a run keeps, one for each process of its cells.
        result["gpu_memory_utilization"] = 0.05
        if not is_eager(job):
            result["max_cudagraph_capture_size"] = GRAPH_TOKENS
    return result


def is_eager(job: Job) -> bool:
    """Does the engine run without compilation and CUDA graphs?"""
    asked = settings_of(job).enforce_eager
    return job.accelerator == "cpu" if asked == "auto" else asked


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
        # Of temperatures above 0, which no request has; FlashInfer would compile it for a minute and a half at the first start.
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
        "VLLM_SERVER_DEV_MODE": "1",  # /reset_prefix_cache and /server_info
        # Telling log-probabilities makes torch compile a few lines, for which it first compiles its headers: once, not in each process.
        "TORCHINDUCTOR_CACHE_DIR": str(building.CACHE / "torchinductor" / job.environment_key[:16]),
    }
    if job.accelerator == "cpu":
        extra["VLLM_CPU_KVCACHE_SPACE"] = str(settings_of(job).kv_cache_gib)
        extra["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))  # "auto" would leave one core idle
    inherited = clean_environment(extra)
    # ninja, which compiles kernels at the start, is in the environment of the engine, and no PATH of a user's has that.
    return inherited | {"PATH": f"{Path(sys.executable).parent}:{inherited.get('PATH', os.defpath)}"}


def check_compiler(job: Job) -> None:
    """Triton, which makes kernels at the engine's start, compiles how they are launched. Raises ColdprefixError if it will not find a C compiler."""
    if job.accelerator == "cuda" and not any(shutil.which(name, path=environment(job)["PATH"]) for name in ("gcc", "clang")):
        raise ColdprefixError(f"{job.cell}: vLLM on cuda needs a C compiler, gcc or clang, on PATH: apt-get install gcc")


def _graph_tokens(compilation: Any) -> int | None:
    """Steps of up to so many tokens run as CUDA graphs; None if the engine does not say."""
    return compilation.get("max_cudagraph_capture_size") if isinstance(compilation, dict) else None


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
    shape = read_json(model / "config.json")
    shape = shape.get("text_config") or shape
    try:
        own, cache, scheduler = config["model_config"], config["cache_config"], config["scheduler_config"]
        blocks, block_tokens = cache["num_gpu_blocks"], cache["block_size"]
        asked = cache["num_gpu_blocks_override"]
        pool = None if asked else cache["kv_cache_memory_bytes"]  # else it says what was allowed, not what is used
        return {
            "context_tokens": own["max_model_len"],
            "batch_tokens": scheduler["max_num_batched_tokens"],
            "slots": scheduler["max_num_seqs"],
            "chunked_prefill": scheduler["enable_chunked_prefill"],
            "async_scheduling": scheduler["async_scheduling"],
            "prefix_caching": cache["enable_prefix_caching"],
            "block_tokens": block_tokens,
            "blocks": blocks,
            "pool_blocks": asked or "auto",
            # The pool is cut into whole blocks and vLLM does not report a block's bytes, so this is an upper bound.
            "kv_bytes_per_token_at_most": pool // (blocks * block_tokens) if pool and blocks else None,
            "kv_dtype": cache["cache_dtype"],
            "retention_tokens": "all" if (kept := cache["prefix_cache_retention_interval"]) is None else kept,
            "mamba_mode": cache["mamba_cache_mode"],
            "hybrid_manager": not scheduler["disable_hybrid_kv_cache_manager"],
            "layers": layers_of(shape),
            "window": shape["sliding_window"] if layers_of(shape) == "window" else None,
            "dtype": str(own["dtype"]).removeprefix("torch."),
            "enforce_eager": own["enforce_eager"],
            "graph_tokens": None if own["enforce_eager"] else _graph_tokens(config["compilation_config"]),
            "threads": job.threads,
        }
    except (KeyError, TypeError) as error:
        raise ColdprefixError(
            f"vLLM's configuration has no field {error}; has it been renamed? Look at engines/vllm/arguments.py"
        ) from None
