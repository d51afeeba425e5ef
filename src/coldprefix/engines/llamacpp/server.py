"""llama-server as a session: how it is started and asked what is in force."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from coldprefix.engines.client import Client
from coldprefix.engines.contract import Completion, NextToken, Session
from coldprefix.engines.llamacpp.build import ensure_build
from coldprefix.engines.llamacpp.engine import settings_of
from coldprefix.engines.llamacpp.log import loaded_libraries, settings_from_log, slot_tokens
from coldprefix.engines.llamacpp.reuse import memory_of
from coldprefix.engines.llamacpp.wire import LlamaWire
from coldprefix.engines.reuse import Memory
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job
from coldprefix.process.server import Server, clean_environment


class LlamaServer(Session):
    """A llama-server of one job, on a private Unix socket."""

    def __init__(self, job: Job, gguf: Path, log: Path) -> None:
        settings = self._settings = settings_of(job)
        folder = ensure_build(job.accelerator)
        on_off = {True: "on", False: "off"}
        command = [str(folder / "llama-server"), "--model", str(gguf.absolute()), "--host", "{socket}", "--offline", "--no-ui"]
        pool = settings.context_of(job.model.positions) * (1 if settings.unified else settings.slots)
        command += ["--ctx-size", str(pool), "--parallel", str(settings.slots)]
        command += ["--kv-unified" if settings.unified else "--no-kv-unified"]
        command += ["--batch-size", str(settings.batch_tokens), "--ubatch-size", str(settings.ubatch_tokens)]
        command += ["--threads", str(job.threads), "--threads-batch", str(job.threads)]
        layers = "0" if job.accelerator == "cpu" else "all" if settings.gpu_layers < 0 else str(settings.gpu_layers)
        command += ["--gpu-layers", layers, "--flash-attn", on_off[settings.flash_attention], "--fit", "off"]
        command += ["--cache-ram", str(settings.host_cache_mib), "--cache-reuse", str(settings.cache_reuse)]
        command += ["--ctx-checkpoints", str(settings.checkpoints), *(["--swa-full"] if settings.swa_full is True else [])]
        command += ["--cache-type-k", settings.kv_type, "--cache-type-v", settings.kv_type]
        command += ["--cache-prompt" if settings.prompt_cache else "--no-cache-prompt", "--slot-save-path", "{folder}"]
        # Verbosity 4 is where libllama says what is in force; with 1 s pings SIGTERM in mid-stream takes 1.3 s, not 31.
        command += ["--verbosity", "4", "--sse-ping-interval", "1", "--metrics"]
        self.command = command
        self._server = Server("llama-server", command, clean_environment({}), log, grace_s=5.0, key_variable="LLAMA_API_KEY")
        self._client = Client(self._server, job.protocol.timeout_s)
        self._wire = LlamaWire(self._client, job.protocol.request_form, settings.prompt_cache)
        self.start_s = self._client.wait_healthy(job.protocol.start_timeout_s)
        try:
            self._wire.forced_token  # noqa: B018  (found now, so that no request to be timed asks for it)
        except BaseException:
            self.close()
            raise

    def memory(self) -> Memory:
        return memory_of(self._in_force, "http")

    def seen(self, prompt: Sequence[int]) -> list[int]:
        return self._wire.render(prompt).seen

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        return self._wire.complete(prompt, max_tokens, stream)

    def next_token(self, prompt: Sequence[int]) -> NextToken:
        return self._wire.next_token(prompt)

    def reset(self) -> None:
        """Erase every slot. The host-memory cache cannot be emptied by request: it is refused while there is one."""
        if self._settings.host_cache_mib:
            raise ColdprefixError("reset: trial cannot empty llama-server's host-memory cache; set llamacpp.host_cache_mib: 0")
        for slot in range(self._settings.slots):
            status, text = self._client.post(f"/slots/{slot}?action=erase")
            if status != 200:
                raise ColdprefixError(f"llama-server did not erase slot {slot}: {status} {text[:300]}")

    @cached_property
    def _in_force(self) -> dict[str, Any]:
        return self.in_force()

    def in_force(self) -> dict[str, Any]:
        slots = self._client.ask("/props", None, "total_slots")
        context = self._client.ask("/props", None, "default_generation_settings", "n_ctx")
        log = self._server.log.read_text(errors="replace")
        threads = re.findall(r"n_threads = (\d+) \(n_threads_batch = (\d+)\)", log)
        host = re.findall(r"prompt cache is (disabled|enabled)(?:, size limit: (\d+) MiB)?", log)
        if not threads or not host:
            raise ColdprefixError(
                f"llama-server's log does not say its threads or its host cache; is its disk full, or has its wording changed? "
                f"{self._server.log}"
            )
        settings = self._told
        if (slots, context) != (settings["slots"], slot_tokens(settings["context_tokens"], log)):
            raise ColdprefixError(f"llama-server's /props ({slots} slots of {context} tokens) contradict its log ({settings})")
        return {
            **settings,
            "prompt_cache": self._settings.prompt_cache,
            "checkpoints": self._settings.checkpoints,
            "cache_reuse": self._settings.cache_reuse,
            "threads": int(threads[-1][0]),
            "threads_batch": int(threads[-1][1]),
            "host_cache_mib": 0 if host[-1][0] == "disabled" else int(host[-1][1] or -1),
            "libraries": self._libraries(),
            "version": self._client.ask("/props", None, "build_info"),
            "command": self.command,
        }

    @cached_property
    def _told(self) -> dict[str, Any]:
        """What libllama said when it started."""
        return settings_from_log(self._server.log.read_text(errors="replace"))

    def _libraries(self) -> dict[str, str]:
        try:
            return loaded_libraries(self._server.process_ids()[1])
        except (IndexError, OSError) as error:
            self._server.check_alive("starting", 5.0)
            raise ColdprefixError(f"cannot see which libraries llama-server has loaded: {error!r}") from None

    def process_ids(self) -> list[int]:
        return self._server.process_ids()

    def close(self) -> None:
        self._client.close()
