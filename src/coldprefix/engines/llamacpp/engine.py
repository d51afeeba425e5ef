"""llama.cpp, as the configuration and the workflow know it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from coldprefix.engines.contract import Engine, EngineSettings, Interface, Session
from coldprefix.engines.llamacpp import build
from coldprefix.engines.llamacpp.reuse import memory_of
from coldprefix.engines.reuse import Memory
from coldprefix.files import sha256_of
from coldprefix.job import Job
from coldprefix.setup.building import build_record


class LlamaCppSettings(EngineSettings):
    """Settings of llama.cpp, equal for llama-server (phase3a) and llama-cpp-python (phase3b)."""

    context_tokens: int = Field(ge=16, description="Context of one slot, in tokens; capped at the model's positions.")
    batch_tokens: int = Field(ge=1, description="n_batch: most prompt tokens submitted to one llama_decode; capped at the context.")
    ubatch_tokens: int = Field(ge=1, description="n_ubatch: most prompt tokens computed in one graph.")
    gpu_layers: int = Field(ge=-1, description="Layers offloaded to the GPU; -1 means all. Ignored on cpu.")
    flash_attention: bool = Field(description="Flash attention. The binding's own default is off, the server's auto.")
    slots: int = Field(ge=1, description="llama-server's slots (--parallel). The binding has one sequence.")
    unified: bool = Field(
        description="All slots share one pool of context_tokens cells (--kv-unified, llama-server's default where it chooses the slots "
        "itself). false: each slot has context_tokens of its own."
    )
    host_cache_mib: int = Field(
        ge=0,
        description="llama-server keeps replaced prompts in host memory and restores them (--cache-ram, 8192 by default). "
        "0 turns that off; with more, a repeated miss becomes a hit.",
    )
    prompt_cache: bool = Field(description="Reuse the longest common prefix of the slot (cache_prompt). Off: nothing can hit.")
    kv_type: Literal["f16", "bf16", "f32", "q8_0", "q4_0"] = Field(
        description="Type of the cached keys and values. A quantised one needs flash_attention."
    )
    swa_full: Literal["default"] | bool = Field(
        description="Layers with a sliding window cache the whole context. false: no more than the window needs; then llama-server keeps "
        "checkpoints, and the binding may reuse what is no longer there. default: what each does by itself: false on llama-server, true in "
        "the binding.",
    )
    checkpoints: int = Field(
        ge=0,
        description="llama-server's copies of windows and states for each slot (--ctx-checkpoints); the binding has none.",
    )
    cache_reuse: int = Field(
        ge=0,
        description="llama-server moves cached runs of at least so many tokens (--cache-reuse). Their keys and values have seen other "
        "tokens before them: answers change. 0 turns it off, and the binding cannot do it.",
    )


def settings_of(job: Job) -> LlamaCppSettings:
    """The settings that a job asks for."""
    return LlamaCppSettings.model_validate(job.settings)


class LlamaCpp(Engine):
    """llama-server, and llama-cpp-python on the very same library."""

    name = "llamacpp"
    title = "llama.cpp"
    settings = LlamaCppSettings
    interfaces = {"http": Interface("phase3a", "#E69F00", "^"), "python": Interface("phase3b", "#CC79A7", "D")}  # noqa: RUF012
    must_agree = (
        *("context_tokens", "batch_tokens", "ubatch_tokens", "slots", "flash_attention", "gpu_layers", "threads", "threads_batch"),
        *("kv_dtype", "kv_bytes_per_token", "state_bytes", "window_tokens", "recurrent", "libraries"),
    )
    weights = "gguf"
    refuses = {"OPTForCausalLM": 'convert_hf_to_gguf.py: "Model OPTForCausalLM is not supported"'}  # noqa: RUF012
    caching = "prompt_cache"

    def for_clients(self, settings: Mapping[str, Any], most: int) -> dict[str, Any]:
        return {"slots": most}

    def in_pieces(self, settings: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        return {"batch_tokens": tokens, "ubatch_tokens": min(tokens, settings["ubatch_tokens"])}

    def may_differ(self, settings: Mapping[str, Any]) -> frozenset[str]:
        return frozenset({"window_tokens"} if settings.get("swa_full") == "default" else ())

    def environment(self, accelerator: str) -> str:
        """The same for all: it holds no accelerator code, since the library is built apart."""
        return "llamacpp"

    def built_from(self, accelerator: str) -> str:
        return sha256_of(" ".join(build.built_from(accelerator)).encode())

    def build(self, accelerator: str) -> dict[str, Any]:
        return build_record(build.ensure_build(accelerator))

    def problems(self, settings: LlamaCppSettings, interface: str) -> Iterator[str]:
        if settings.ubatch_tokens > settings.batch_tokens:
            yield f"ubatch_tokens: {settings.ubatch_tokens} is more than batch_tokens ({settings.batch_tokens}); write at most that"
        if settings.kv_type.startswith("q") and not settings.flash_attention:
            yield f"kv_type: {settings.kv_type} needs flash attention; write flash_attention: true, or kv_type: f16"
        if settings.cache_reuse and interface == "python":
            yield "cache_reuse: llama-cpp-python (phase3b) cannot move cached runs; write cache_reuse: 0, or leave phase3b out of phases"

    def memory(self, in_force: Mapping[str, Any], interface: str) -> Memory:
        return memory_of(in_force, interface)

    def open(self, job: Job, weights: Path, log: Path, owner: int | None, process: int) -> Session:
        # Imported here: each interface needs packages that only its own environment has.
        if job.interface == "http":
            from coldprefix.engines.llamacpp.server import LlamaServer

            return LlamaServer(job, weights, log)
        from coldprefix.engines.llamacpp.binding import LlamaPython

        return LlamaPython(job, weights, log)


ENGINE = LlamaCpp()
