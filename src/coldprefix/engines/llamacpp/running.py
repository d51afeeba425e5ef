"""A llama-server that somebody else has started."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from coldprefix.engines.client import Client
from coldprefix.engines.llamacpp.wire import LlamaWire
from coldprefix.engines.running import UNKNOWN, RunningServer, metrics_of
from coldprefix.errors import ColdprefixError


class RunningLlama(RunningServer):
    """Tells itself by /props, which no other server answers so."""

    title = "llama-server"
    tells_reuse = "timings.cache_n of each answer, always"

    @classmethod
    def is_one(cls, client: Client) -> bool:
        return "default_generation_settings" in client.told("/props")

    def wire(self, form: str) -> LlamaWire:
        return LlamaWire(self.client, form, prompt_cache=True)

    def tells(self) -> dict[str, Any]:
        props = self.client.told("/props")
        settings = props.get("default_generation_settings") or {}
        return {
            "model": self.model,
            "version": props.get("build_info", UNKNOWN),
            "context_tokens": settings.get("n_ctx", UNKNOWN),
            "slots": props.get("total_slots", UNKNOWN),
            # Told by its log only, which is not ours.
            **dict.fromkeys(("host_cache_mib", "cache_reuse", "flash_attention", "threads", "kv_dtype"), UNKNOWN),
        }

    def ids(self) -> Sequence[int]:
        meta = next((entry.get("meta") for entry in self._models()), None) or {}
        size = meta.get("n_vocab")
        if not isinstance(size, int) or size < 256:
            return super().ids()
        return range(min(1000, size // 8), min(size, 50_000) - size // 64)

    def others(self) -> dict[str, float] | None:
        status, text = self.client.get("/slots")
        if status == 200:
            try:
                return {"running": sum(slot["is_processing"] is True for slot in json.loads(text)), "waiting": 0}
            except (ValueError, KeyError, TypeError):
                return None
        status, text = self.client.get("/metrics")
        found = metrics_of(text) if status == 200 else {}
        if "llamacpp:requests_processing" not in found:
            return None
        return {"running": found["llamacpp:requests_processing"], "waiting": found.get("llamacpp:requests_deferred", 0.0)}

    def reset(self) -> None:
        for slot in range(int(self.tells()["slots"])):
            status, text = self.client.post(f"/slots/{slot}?action=erase")
            if status != 200:
                raise ColdprefixError(f"llama-server did not erase slot {slot}: {status} {text[:300]}")


RUNNING = RunningLlama
