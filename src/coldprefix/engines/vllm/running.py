"""A `vllm serve` that somebody else has started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coldprefix.engines.client import Client
from coldprefix.engines.contract import Completion
from coldprefix.engines.running import UNKNOWN, RunningServer, labels_of, metrics_of
from coldprefix.engines.vllm.wire import VllmWire
from coldprefix.errors import ColdprefixError

QUERIES, HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"  # in tokens


class CountedWire(VllmWire):
    """Where the answers do not say what was reused (no --enable-prompt-tokens-details), the server's counters do, if nobody else asked
    meanwhile: they must have grown by this prompt exactly. Where the answers say it, the counters, which are everybody's, are not asked."""

    answers_tell: bool | None = None

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        before = {} if self.answers_tell else self._counters()
        done = super().complete(prompt, max_tokens, stream)
        self.answers_tell = done.cached_tokens is not None
        if self.answers_tell:
            return done
        after = self._counters()
        asked, hits = (int(after.get(name, -1) - before.get(name, 0)) for name in (QUERIES, HITS))
        if HITS not in after or QUERIES not in after:
            return done
        if asked != done.prompt_tokens:
            return replace(done, uncounted=f"{done.uncounted}, and its counters grew by {asked} prompt tokens: others use it, too")
        return replace(done, cached_tokens=hits, uncounted=None, evaluated_tokens=asked - hits)

    def _hits(self) -> int | None:
        return None

    def _counters(self) -> dict[str, float]:
        status, text = self.client.get("/metrics")
        return metrics_of(text) if status == 200 else {}


class RunningVllm(RunningServer):
    """Tells itself by its models, which are "owned_by" vllm."""

    title = "vllm serve"
    tells_reuse = "usage.prompt_tokens_details.cached_tokens, with --enable-prompt-tokens-details; else its counters in /metrics"

    @classmethod
    def is_one(cls, client: Client) -> bool:
        data = client.told("/v1/models").get("data")
        return isinstance(data, list) and any(isinstance(entry, dict) and entry.get("owned_by") == "vllm" for entry in data)

    def wire(self, form: str) -> VllmWire:
        return CountedWire(self.client, form, self.model)

    def tells(self) -> dict[str, Any]:
        status, text = self.client.get("/metrics")
        cache = labels_of(text, "vllm:cache_config_info") if status == 200 else {}
        own = next((entry for entry in self._models() if entry.get("id") == self.model), {})
        return {
            "model": self.model,
            "version": self.client.told("/version").get("version", UNKNOWN),
            "context_tokens": own.get("max_model_len", UNKNOWN),
            "slots": "a pool of blocks",
            **{ours: _number(cache.get(theirs)) for ours, theirs in (("block_tokens", "block_size"), ("blocks", "num_gpu_blocks"))},
            "prefix_caching": {"True": True, "False": False}.get(cache.get("enable_prefix_caching", ""), UNKNOWN),
            "kv_dtype": cache.get("cache_dtype", UNKNOWN),
        }

    def others(self) -> dict[str, float] | None:
        status, text = self.client.get("/metrics")
        found = metrics_of(text) if status == 200 else {}
        if "vllm:num_requests_running" not in found:
            return None
        return {"running": found["vllm:num_requests_running"], "waiting": found.get("vllm:num_requests_waiting", 0.0)}

    def prompt_tokens_so_far(self) -> int | None:
        status, text = self.client.get("/metrics")
        found = metrics_of(text).get("vllm:prompt_tokens_total") if status == 200 else None
        return None if found is None else int(found)

    def reset(self) -> None:
        if self.client.ask("/reset_prefix_cache", {}, "success") is not True:
            raise ColdprefixError("vllm serve did not empty its prefix cache")


def _number(text: str | None) -> int | str:
    return int(text) if text is not None and text.isdecimal() else UNKNOWN


RUNNING = RunningVllm
