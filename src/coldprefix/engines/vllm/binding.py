"""vLLM's `LLM` in this process, without its worker process; stepped by hand, so that each token has a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coldprefix.engines.clock import Stopwatch, undisturbed
from coldprefix.engines.contract import TOP, Completion, NextToken, Session
from coldprefix.engines.reuse import Memory
from coldprefix.engines.vllm.arguments import arguments, environment, settings_in_force
from coldprefix.engines.vllm.reuse import memory_of
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job
from coldprefix.process.in_process import InProcess


class VllmPython(Session):
    """`LLM` with its engine core in this process (VLLM_ENABLE_V1_MULTIPROCESSING=0): one process, one clock."""

    def __init__(self, job: Job, model: Path, log: Path) -> None:
        self._job, self._model = job, model
        own = environment(job) | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        patience = job.protocol.start_timeout_s, job.protocol.timeout_s
        # vLLM leaves a file store for its (one) distributed process in the temporary folder at every start.
        self._here = InProcess(job.cell, "vLLM", log, own, *patience, own_tmp=True)
        started = time.monotonic()
        with self._here.starting(model):
            from vllm import LLM, SamplingParams

            self._sampling = SamplingParams
            self._llm = LLM(model=str(model), distributed_executor_backend="uni", disable_log_stats=False, **arguments(job))
        self.start_s = time.monotonic() - started
        self._requests = 0
        self._in_force = self._read_in_force()

    def memory(self) -> Memory:
        return memory_of(self._in_force)

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        engine = self._llm.llm_engine
        sampling = self._sampling(max_tokens=max_tokens, temperature=0, ignore_eos=True, detokenize=False)
        times: list[float] = []
        generated: list[int] = []  # tokens known after each step
        output: Any = None
        self._requests += 1
        ids = {"prompt_token_ids": list(prompt)}
        before = self._hits()
        with self._here.answering(len(prompt)), undisturbed():
            watch = Stopwatch()
            engine.add_request(str(self._requests), ids, sampling)
            while engine.has_unfinished_requests():
                for output in engine.step():
                    times.append(watch.ms())
                    generated.append(len(output.outputs[0].token_ids))
        if output is None:
            raise ColdprefixError(f"vLLM gave no output for a prompt of {len(prompt)} tokens")
        cached = output.num_cached_tokens
        latency = output.metrics.first_token_latency if output.metrics else None
        return Completion(
            started_at=watch.started_at,
            connect_ms=None,
            total_ms=times[-1],
            token_times_ms=times if stream else [],
            prompt_tokens=len(output.prompt_token_ids),
            cached_tokens=cached,
            counted_tokens=self._hits() - before,
            evaluated_tokens=len(output.prompt_token_ids) - cached if cached is not None else None,
            engine_ttft_ms=latency * 1e3 if latency is not None else None,
            generated_tokens=generated[-1],
            first_chunk_tokens=generated[0] if stream else None,
        )

    def _hits(self) -> int:
        """The engine's counter of prompt tokens found in its prefix cache."""
        return sum(metric.value for metric in self._llm.get_metrics() if metric.name == "vllm:prefix_cache_hits")

    def next_token(self, prompt: Sequence[int]) -> NextToken:
        sampling = self._sampling(max_tokens=1, temperature=0, detokenize=False, logprobs=TOP)
        with self._here.answering(len(prompt)):
            (output,) = self._llm.generate({"prompt_token_ids": list(prompt)}, sampling, use_tqdm=False)
        told = output.outputs[0].logprobs[0]
        return NextToken({int(token): float(entry.logprob) for token, entry in told.items()}, output.num_cached_tokens)

    def reset(self) -> None:
        if not self._llm.reset_prefix_cache():
            raise ColdprefixError("vLLM did not empty its prefix cache")

    def _read_in_force(self) -> dict[str, Any]:
        from pydantic import TypeAdapter
        from vllm.config import VllmConfig

        config = TypeAdapter(VllmConfig).dump_python(self._llm.llm_engine.vllm_config, mode="json", fallback=str)
        return settings_in_force(config, self._job, self._model)

    def in_force(self) -> dict[str, Any]:
        import vllm as package

        return {**self._in_force, "version": package.__version__, "command": None}

    def process_ids(self) -> list[int]:
        return []

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()
        self._here.close()
