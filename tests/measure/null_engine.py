"""An engine without arithmetic: it remembers prompts as the real caches do, and answers at once.

`slot` keeps one sequence and reuses its longest common prefix (llama.cpp, one slot, no host tier). `pool` keeps every full
block it has ever seen (vLLM). Neither is a stand-in for a real engine in a measurement; they exercise the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from coldprefix.engines.contract import Completion, Session
from coldprefix.engines.reuse import Memory, Pool, Slot
from coldprefix.job import common_prefix


class NullSession(Session):
    def __init__(
        self, kind: Literal["slot", "pool"], block: int = 1, ttft_ms: float = 10.0, reports: bool = True, process: str = "0"
    ) -> None:
        self.process = process
        self.kind = kind
        self.block = block
        self.ttft_ms = ttft_ms
        self.reports = reports
        self.kept: list[list[int]] = []
        self.sent: list[list[int]] = []
        self.resets = 0
        self.closed = False

    @property
    def identity(self) -> str:
        return self.process

    def memory(self) -> Memory:
        return Slot() if self.kind == "slot" else Pool(self.block)

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        ids = list(prompt)
        longest = max((common_prefix(ids, old) for old in self.kept), default=0)
        cached = min(longest, len(ids) - 1) // self.block * self.block
        self.kept = [ids] if self.kind == "slot" else [*self.kept, ids]
        self.sent.append(ids)
        times = [self.ttft_ms + 2.0 * i for i in range(max_tokens)]
        return Completion(
            started_at=1_700_000_000.0 + len(self.sent),
            connect_ms=None,
            total_ms=times[-1],
            token_times_ms=times if stream else [],
            prompt_tokens=len(ids),
            cached_tokens=cached if self.reports else None,
            evaluated_tokens=len(ids) - cached if self.reports else None,
            engine_prompt_ms=self.ttft_ms - 1,
            generated_tokens=max_tokens,
            first_chunk_tokens=1 if stream else None,
        )

    def reset(self) -> None:
        self.resets += 1
        self.kept = []

    def in_force(self) -> dict[str, Any]:
        return {"slots": 1}

    def process_ids(self) -> list[int]:
        return []

    def close(self) -> None:
        self.closed = True
