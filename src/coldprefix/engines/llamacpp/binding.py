"""llama-cpp-python's `Llama()` in this process, on the very library that llama-server loads."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coldprefix.engines.clock import Stopwatch, undisturbed
from coldprefix.engines.contract import TOP, Completion, NextToken, Session
from coldprefix.engines.llamacpp.build import ensure_build
from coldprefix.engines.llamacpp.engine import settings_of
from coldprefix.engines.llamacpp.log import loaded_libraries, settings_from_log
from coldprefix.engines.llamacpp.reuse import memory_of
from coldprefix.engines.reuse import Memory
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job, common_prefix
from coldprefix.process.in_process import InProcess
from coldprefix.process.server import clean_environment


class LlamaPython(Session):
    """The binding. ``generate`` yields token ids as they are sampled, so the clock is read at each token."""

    def __init__(self, job: Job, gguf: Path, log: Path) -> None:
        settings = self._settings = settings_of(job)
        environment = clean_environment({"LLAMA_CPP_LIB_PATH": str(ensure_build(job.accelerator))})
        patience = job.protocol.start_timeout_s, job.protocol.timeout_s
        self._here = InProcess(job.cell, "llama-cpp-python", log, environment, *patience)
        started = time.monotonic()
        self._lines: list[str] = []
        with self._here.starting(gguf):
            import llama_cpp

            self._api = llama_cpp

            def keep_line(_level: int, text: bytes, _data: Any) -> None:
                line = text.decode(errors="replace")
                self._lines.append(line)
                if not self.start_s:  # once it runs, nothing is written inside a measurement
                    sys.stderr.write(line)
                    sys.stderr.flush()

            self._callback = llama_cpp.llama_log_callback(keep_line)  # kept: C holds a pointer to it
            llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))
            self._llama = llama_cpp.Llama(
                model_path=str(gguf),
                n_ctx=settings.context_of(job.model.positions),
                n_batch=settings.batch_tokens,
                n_ubatch=settings.ubatch_tokens,
                n_threads=job.threads,
                n_threads_batch=job.threads,
                n_gpu_layers=0 if job.accelerator == "cpu" else settings.gpu_layers,
                flash_attn=settings.flash_attention,  # the binding's default is off
                swa_full=settings.swa_full is not False,  # also its own default
                type_k=getattr(llama_cpp, f"GGML_TYPE_{settings.kv_type.upper()}"),
                type_v=getattr(llama_cpp, f"GGML_TYPE_{settings.kv_type.upper()}"),
                verbose=False,  # verbose prints at every prompt
            )
        self.start_s = time.monotonic() - started
        self._told = settings_from_log("".join(self._lines))
        self._recurrent: bool = self._told["recurrent"]
        self._own = {"prompt_cache": settings.prompt_cache, "checkpoints": 0, "cache_reuse": 0}

    def memory(self) -> Memory:
        return memory_of({**self._told, **self._own}, "python")

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        ids = list(prompt)
        context = self._llama._ctx.ctx
        if not self._settings.prompt_cache:
            self._llama.reset()
        held = self._held(ids)
        with self._here.answering(len(ids)), undisturbed():
            self._api.llama_perf_context_reset(context)
            watch = Stopwatch()
            generator = self._llama.generate(ids, temp=0.0)
            times = watch.arrivals(generator, 1)
            perf = self._api.llama_perf_context(context)
            times += watch.arrivals(generator, max_tokens - 1)
            generator.close()
        evaluated = _evaluated(perf)
        return Completion(
            started_at=watch.started_at,
            connect_ms=None,
            total_ms=times[-1],
            token_times_ms=times if stream else [],
            prompt_tokens=None,
            cached_tokens=len(ids) - evaluated,
            evaluated_tokens=evaluated,
            counted_tokens=held,
            engine_prompt_ms=perf.t_p_eval_ms + perf.t_eval_ms,
            generated_tokens=len(times),
            first_chunk_tokens=1 if stream else None,
        )

    def _held(self, ids: list[int]) -> int:
        """How many of its first tokens the context holds at their positions, all but the last at most: not from the counters of what it
        computed."""
        own = self._llama.input_ids[: self._llama.n_tokens].tolist()
        memory = self._api.llama_get_memory(self._llama._ctx.ctx)
        positions = self._api.llama_memory_seq_pos_max(memory, 0) + 1
        shared = min(common_prefix(own, ids), len(ids) - 1, int(positions))
        return 0 if self._recurrent and shared < len(own) else shared  # a state cannot be cut

    def next_token(self, prompt: Sequence[int]) -> NextToken:
        import numpy as np

        ids = list(prompt)
        held = self._held(ids)
        with self._here.answering(len(ids)):
            generator = self._llama.generate(ids, temp=0.0)
            next(generator)
            logits = np.ctypeslib.as_array(self._api.llama_get_logits_ith(self._llama._ctx.ctx, -1), shape=(self._llama.n_vocab(),))
            values = logits.astype(np.float64)
            generator.close()
        values -= values.max()
        values -= np.log(np.exp(values).sum())
        best = np.argsort(-values)[:TOP]
        return NextToken({int(token): float(values[token]) for token in best}, held)

    def reset(self) -> None:
        self._llama.reset()
        self._llama._ctx.kv_cache_clear()

    def in_force(self) -> dict[str, Any]:
        context = self._llama._ctx.ctx
        settings = self._told
        told = {
            "context_tokens": self._api.llama_n_ctx(context),
            "batch_tokens": self._api.llama_n_batch(context),
            "ubatch_tokens": self._api.llama_n_ubatch(context),
        }
        if any(settings[key] != value for key, value in told.items()):
            raise ColdprefixError(f"llama-cpp-python says {told}, its log {settings}")
        return {
            **settings,
            "threads": self._api.llama_n_threads(context),
            "threads_batch": self._api.llama_n_threads_batch(context),
            **self._own,
            "host_cache_mib": 0,  # LlamaRAMCache acts in create_completion only, which is not used here
            "libraries": loaded_libraries("self"),
            "version": self._api.__version__,
            "command": None,
        }

    def process_ids(self) -> list[int]:
        return []

    def close(self) -> None:
        self._llama.close()
        self._here.close()


def _evaluated(perf: Any) -> int:
    """Prompt tokens evaluated since the last reset of the counters, read at the first generated token.

    llama_perf_context clamps both counts to at least 1 and books a batch of one token as generation
    (src/llama-context.cpp); a time of zero tells that nothing was evaluated.
    """
    prompt: int = perf.n_p_eval if perf.t_p_eval_ms > 0 else 0
    single: int = perf.n_eval if perf.t_eval_ms > 0 else 0
    return prompt + single
