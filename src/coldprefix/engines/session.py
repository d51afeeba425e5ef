"""The contract between the protocol and an engine.

A session is an engine that runs with given settings. It is sent token ids and answers with times and counts, no text.
Adding an engine means adding a module with a class like this and an environment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Completion:
    """One answered request. Times are in ms from the moment the request is handed to the engine.

    Over HTTP that moment is when the connection stands: connecting is `connect_ms`, not part of the other times.

    Attributes:
        started_at: wall clock at the start, in seconds since the epoch.
        connect_ms: time to connect; None in process.
        total_ms: until the answer is complete; None if the engine refused.
        token_times_ms: arrival of each generated token (tokens of one chunk share a time); empty when not streamed.
        prompt_tokens: length of the prompt as the engine reports it; None if it does not.
        cached_tokens: prompt tokens the engine says it reused; None if it does not say.
        evaluated_tokens: prompt tokens the engine says it computed; None if it does not say.
        engine_prompt_ms: the engine's own time for the prompt: llama.cpp's prompt evaluation, vLLM's time to first token.
        generated_tokens: as the engine reports them.
        first_chunk_tokens: tokens in the first streamed chunk; None when not streamed.
    """

    started_at: float
    connect_ms: float | None
    total_ms: float | None
    token_times_ms: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    evaluated_tokens: int | None = None
    engine_prompt_ms: float | None = None
    generated_tokens: int = 0
    first_chunk_tokens: int | None = None

    @property
    def ttft_ms(self) -> float | None:
        """Time to first token, if the answer was streamed."""
        return self.token_times_ms[0] if self.token_times_ms else None


class Session(ABC):
    """An engine that runs. Close it, or use it as a context manager.

    Attributes:
        start_s: seconds from the start until it was ready.
        used_before: number of cells that the same engine has measured before; 0 for one that was started for this job.
    """

    start_s: float = 0.0
    used_before: int = 0

    @property
    @abstractmethod
    def granularity(self) -> int:
        """Cached tokens are reused in whole multiples of this many."""

    @abstractmethod
    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        """Send a prompt and generate exactly ``max_tokens`` greedily.

        Raises:
            EngineRefusal: the engine works, but will not take this prompt.
            ColdprefixError: the engine failed, died, or did not answer in time; one inside this process ends it then (watchdog.py).
        """

    def seen(self, prompt: Sequence[int]) -> list[int]:
        """The token ids that the engine works on when it is sent this prompt: not the same where it is sent as text."""
        return list(prompt)

    @abstractmethod
    def reset(self) -> None:
        """Empty the engine's cache. Raises ColdprefixError where the engine cannot or says that it did not."""

    @abstractmethod
    def in_force(self) -> dict[str, Any]:
        """The settings that are really in force, read back from the engine; see `docs/reference.md`."""

    @abstractmethod
    def process_ids(self) -> list[int]:
        """Processes that work for the engine; their load is not foreign load."""

    @abstractmethod
    def close(self) -> None:
        """Stop the engine; nothing of it survives."""

    def leave(self) -> None:
        """The job is done and the engine idle: stop it, or leave it to the next job where jobs share one."""
        self.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.leave()
        else:
            self.close()
