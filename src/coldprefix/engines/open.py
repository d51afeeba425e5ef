"""From a job to a running session."""

from __future__ import annotations

from pathlib import Path

from coldprefix.engines.session import Session
from coldprefix.job import Job


def open_session(job: Job, model: Path, gguf: Path, log: Path) -> Session:
    """Start the engine of a job and wait until it is ready.

    Args:
        model: folder with the safetensors model (vLLM).
        gguf: the GGUF file (llama.cpp).
        log: where the engine's own output goes.

    Raises:
        ColdprefixError: it did not start.
    """
    # Imported here: each interface needs packages that only its own environment has.
    if job.engine == "llamacpp" and job.interface == "http":
        from coldprefix.engines.llamacpp_http import LlamaServer

        return LlamaServer(job, gguf, log)
    if job.engine == "llamacpp":
        from coldprefix.engines.llamacpp_python import LlamaPython

        return LlamaPython(job, gguf, log)
    if job.interface == "http":
        from coldprefix.engines.vllm_http import VllmServer

        return VllmServer(job, model, log)
    from coldprefix.engines.vllm_python import VllmPython

    return VllmPython(job, model, log)
