"""From a job to a running session."""

from __future__ import annotations

from pathlib import Path

from coldprefix import shared
from coldprefix.engines.session import Session
from coldprefix.job import Job


def open_session(job: Job, model: Path, gguf: Path, log: Path, owner: int | None = None) -> Session:
    """Start the engine of a job and wait until it is ready.

    Args:
        model: folder with the safetensors model (vLLM).
        gguf: the GGUF file (llama.cpp).
        log: where the engine's own output goes.
        owner: process id of the workflow, which a server that jobs share belongs to; None: a server of this job.

    Raises:
        ColdprefixError: it did not start.
    """
    if owner and not job.shares_server:
        shared.end_all(owner)  # nothing runs beside the engine that is measured
    # Imported here: each interface needs packages that only its own environment has.
    if job.engine == "llamacpp" and job.interface == "http":
        from coldprefix.engines.llamacpp_http import LlamaServer

        return LlamaServer(job, gguf, log)
    if job.engine == "llamacpp":
        from coldprefix.engines.llamacpp_python import LlamaPython

        return LlamaPython(job, gguf, log)
    if job.interface == "http":
        from coldprefix.engines.vllm_http import VllmServer

        return VllmServer(job, model, log, owner)
    from coldprefix.engines.vllm_python import VllmPython

    return VllmPython(job, model, log)
