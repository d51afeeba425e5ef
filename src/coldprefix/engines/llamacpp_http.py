"""llama-server: /completion with token ids, streamed as server-sent events."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coldprefix.engines import llamacpp
from coldprefix.engines.http import CHAT_TEMPLATE, Client, Exchange, Rendered, count, messages, number
from coldprefix.engines.session import Completion, Session
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job
from coldprefix.server import Server, clean_environment

# Every generated token is this one, by a bias: llama-server withholds a chunk whose bytes are not complete UTF-8, and then
# the first token's time is lost. Token 262 of GPT-2 is " the". The arithmetic of a step does not depend on the token.
FORCED_TOKEN = 262


class LlamaServer(Session):
    """A llama-server of one job, on a private Unix socket."""

    def __init__(self, job: Job, gguf: Path, log: Path) -> None:
        settings = job.llamacpp
        assert settings is not None
        self._settings = settings
        self._form = job.protocol.request_form
        self._rendered: dict[tuple[int, ...], Rendered] = {}
        folder = llamacpp.build_folder(job)
        on_off = {True: "on", False: "off"}
        command = [str(folder / "llama-server"), "--model", str(gguf.absolute()), "--host", "{socket}", "--offline", "--no-ui"]
        pool = llamacpp.context_tokens(job) * (1 if settings.unified else settings.slots)
        command += ["--ctx-size", str(pool), "--parallel", str(settings.slots)]
        command += ["--kv-unified" if settings.unified else "--no-kv-unified"]
        command += ["--batch-size", str(settings.batch_tokens), "--ubatch-size", str(settings.ubatch_tokens)]
        command += ["--threads", str(job.threads), "--threads-batch", str(job.threads)]
        layers = "0" if job.accelerator == "cpu" else "all" if settings.gpu_layers < 0 else str(settings.gpu_layers)
        command += ["--gpu-layers", layers, "--flash-attn", on_off[settings.flash_attention], "--fit", "off"]
        command += ["--cache-ram", str(settings.host_cache_mib), "--cache-reuse", "0"]
        command += ["--cache-prompt" if settings.prompt_cache else "--no-cache-prompt", "--slot-save-path", "{folder}"]
        # Verbosity 4 is where libllama says what is in force; with 1 s pings SIGTERM in mid-stream takes 1.3 s, not 31.
        if job.protocol.request_form == "chat":
            command += ["--chat-template-file", str(CHAT_TEMPLATE)]
        command += ["--verbosity", "4", "--sse-ping-interval", "1", "--metrics"]
        self.command = command
        self._server = Server("llama-server", command, clean_environment({}), log, grace_s=5.0, key_variable="LLAMA_API_KEY")
        self._client = Client(self._server, job.protocol.timeout_s)
        self.start_s = self._client.wait_healthy(job.protocol.start_timeout_s)

    @property
    def granularity(self) -> int:
        return 1

    def _render(self, prompt: Sequence[int]) -> Rendered:
        """The prompt in the form of this job. Texts are kept: a prompt comes twice in a trial, and is rendered outside the clock."""
        ids = list(prompt)
        if self._form == "tokens":
            return Rendered(ids, ids)
        if tuple(ids) not in self._rendered:
            text = self._client.ask("/detokenize", {"tokens": ids}, "content")
            value, whole = (text, text)
            if self._form == "chat":
                value = messages(text)
                whole = self._client.ask("/apply-template", {"messages": value}, "prompt")
            seen = self._client.ask("/tokenize", {"content": whole, "add_special": True, "parse_special": True}, "tokens")
            self._rendered[tuple(ids)] = Rendered(value, seen)
        return self._rendered[tuple(ids)]

    def seen(self, prompt: Sequence[int]) -> list[int]:
        return self._render(prompt).seen

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        rendered = self._render(prompt)
        body: dict[str, Any] = {
            "stream": stream,
            "temperature": 0,
            "ignore_eos": True,
            "logit_bias": [[FORCED_TOKEN, 1000]],
            "cache_prompt": self._settings.prompt_cache,
        }
        if self._form == "chat":
            body |= {"messages": rendered.value, "max_tokens": max_tokens, "timings_per_token": True}
            body |= {"stream_options": {"include_usage": True}} if stream else {}
            return self._of_chat(self._client.exchange("/v1/chat/completions", body, stream), stream)
        body |= {"prompt": rendered.value, "n_predict": max_tokens, "return_tokens": True}
        answer = self._client.exchange("/completion", body, stream)
        _, final = answer.events[-1]
        if final.get("stop") is not True:
            raise ColdprefixError(f"llama-server ended a stream before its last event. Its log: {self._server.log}")
        chunks = [(time_ms, len(event.get("tokens") or [])) for time_ms, event in answer.events] if stream else []
        chunks = [chunk for chunk in chunks if chunk[1]]
        return Completion(
            started_at=answer.started_at,
            connect_ms=answer.connect_ms,
            total_ms=answer.total_ms,
            token_times_ms=[time_ms for time_ms, tokens in chunks for _ in range(tokens)],
            prompt_tokens=count(final, "tokens_evaluated"),  # the name deceives: it is the whole prompt
            cached_tokens=count(final, "timings", "cache_n"),
            evaluated_tokens=count(final, "timings", "prompt_n"),
            engine_prompt_ms=number(final, "timings", "prompt_ms"),
            generated_tokens=count(final, "tokens_predicted") or 0,
            first_chunk_tokens=chunks[0][1] if chunks else None,
        )

    def _of_chat(self, answer: Exchange, stream: bool) -> Completion:
        """The same from /v1/chat/completions, where chunks carry no ids: their `timings` count what has been generated."""
        _, final = answer.events[-1]
        if "usage" not in final:
            raise ColdprefixError(f"llama-server ended a chat stream before its usage counts. Its log: {self._server.log}")
        times: list[float] = []
        first_chunk_tokens = None
        for time_ms, event in answer.events if stream else []:
            known = count(event, "timings", "predicted_n")
            choices = event.get("choices") or [{}]
            if choices[0].get("delta", {}).get("content") and known is not None and known > len(times):
                first_chunk_tokens = first_chunk_tokens or known
                times += [time_ms] * (known - len(times))
        return Completion(
            started_at=answer.started_at,
            connect_ms=answer.connect_ms,
            total_ms=answer.total_ms,
            token_times_ms=times,
            prompt_tokens=count(final, "usage", "prompt_tokens"),
            cached_tokens=count(final, "timings", "cache_n"),
            evaluated_tokens=count(final, "timings", "prompt_n"),
            engine_prompt_ms=number(final, "timings", "prompt_ms"),
            generated_tokens=count(final, "usage", "completion_tokens") or 0,
            first_chunk_tokens=first_chunk_tokens,
        )

    def reset(self) -> None:
        """Erase every slot. The host-memory cache cannot be emptied by request: it is refused while there is one."""
        if self._settings.host_cache_mib:
            raise ColdprefixError("reset: trial cannot empty llama-server's host-memory cache; set llamacpp.host_cache_mib: 0")
        for slot in range(self._settings.slots):
            status, text = self._client.post(f"/slots/{slot}?action=erase")
            if status != 200:
                raise ColdprefixError(f"llama-server did not erase slot {slot}: {status} {text[:300]}")

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
        settings = llamacpp.settings_from_log(log)
        if (slots, context) != (settings["slots"], settings["context_tokens"]):
            raise ColdprefixError(f"llama-server's /props ({slots} slots of {context} tokens) contradict its log ({settings})")
        return {
            **settings,
            "threads": int(threads[-1][0]),
            "threads_batch": int(threads[-1][1]),
            "host_cache_mib": 0 if host[-1][0] == "disabled" else int(host[-1][1] or -1),
            "libraries": self._libraries(),
            "version": self._client.ask("/props", None, "build_info"),
            "command": self.command,
        }

    def _libraries(self) -> dict[str, str]:
        try:
            return llamacpp.loaded_libraries(self._server.process_ids()[1])
        except (IndexError, OSError) as error:
            self._server.check_alive("starting", 5.0)
            raise ColdprefixError(f"cannot see which libraries llama-server has loaded: {error!r}") from None

    def process_ids(self) -> list[int]:
        return self._server.process_ids()

    def close(self) -> None:
        self._client.close()
