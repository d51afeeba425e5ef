"""`vllm serve`: /v1/completions with token ids, streamed as server-sent events."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coldprefix import shared
from coldprefix.engines import vllm
from coldprefix.engines.http import CHAT_TEMPLATE, Client, Rendered, count, messages, number
from coldprefix.engines.session import Completion, Session
from coldprefix.environments import sha256_of
from coldprefix.errors import ColdprefixError
from coldprefix.job import Job
from coldprefix.server import Server


class VllmServer(Session):
    """A `vllm serve` on a private Unix socket: of one job, or of all jobs of ``owner`` that need one like it, if the job allows that."""

    def __init__(self, job: Job, model: Path, log: Path, owner: int | None = None) -> None:
        self._job = job
        self._owner = owner if job.shares_server else None
        self._form = job.protocol.request_form
        self._rendered: dict[tuple[int, ...], Rendered] = {}
        command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model.absolute()), "--uds", "{socket}"]
        for key, value in vllm.arguments(job).items():
            flag = key.replace("_", "-")
            if value is True:
                command.append(f"--{flag}")
            elif value is False:
                command += [] if key in ("enforce_eager", "trust_remote_code") else [f"--no-{flag}"]
            else:
                command += [f"--{flag}", str(value)]
        command += ["--served-model-name", "model", "--enable-prompt-tokens-details", "--enable-per-request-metrics"]
        command += ["--disable-uvicorn-access-log"]
        # Given whether this job sends chats or not, so that all cells need the same server.
        command += ["--chat-template", str(CHAT_TEMPLATE), "--chat-template-content-format", "string"]
        self.command = command
        # Where vLLM's processes talk to each other: the private folder, which goes with the server; by default it leaves sockets in /tmp.
        env = vllm.environment(job) | {"VLLM_RPC_BASE_PATH": "{folder}"}
        identity = sha256_of(json.dumps([command, env, job.environment_key, job.model.identity, job.code]).encode())
        began = time.monotonic()
        found = shared.find(self._owner, identity) if self._owner else None
        self._server = found or Server("vllm serve", command, env, log, grace_s=15.0, key_variable="VLLM_API_KEY", owner=self._owner)
        self._client = Client(self._server, job.protocol.timeout_s)
        try:
            if self._owner and not found:
                shared.register(self._server, self._owner, identity)
            self._client.wait_healthy(job.protocol.start_timeout_s)
            self._in_force = self._read_in_force()
            if self._owner:
                self.used_before = shared.take(self._server, job.cell)
                self.reset()  # and the first warm-up proves it: it must reuse 0 tokens
        except BaseException:
            self.close()
            raise
        if found:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(f"This cell used a server that another cell had started (vllm.share_server); its log: {self._server.log}\n")
        self.start_s = time.monotonic() - began

    @property
    def granularity(self) -> int:
        return int(self._in_force["block_tokens"])

    def _render(self, prompt: Sequence[int]) -> Rendered:
        """The prompt in the form of this job. Texts are kept: a prompt comes twice in a trial, and is rendered outside the clock."""
        ids = list(prompt)
        if self._form == "tokens":
            return Rendered(ids, ids)
        if tuple(ids) not in self._rendered:
            text = self._client.ask("/detokenize", {"model": "model", "tokens": ids}, "prompt")
            asked: dict[str, Any] = {"model": "model", "add_special_tokens": self._form == "text"}
            asked |= {"messages": messages(text), "add_generation_prompt": True} if self._form == "chat" else {"prompt": text}
            seen = self._client.ask("/tokenize", asked, "tokens")
            self._rendered[tuple(ids)] = Rendered(asked.get("messages", text), seen)
        return self._rendered[tuple(ids)]

    def seen(self, prompt: Sequence[int]) -> list[int]:
        return self._render(prompt).seen

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        body: dict[str, Any] = {"model": "model", "max_tokens": max_tokens, "stream": stream, "temperature": 0, "ignore_eos": True}
        body |= {"messages" if self._form == "chat" else "prompt": self._render(prompt).value}
        if stream:
            # Usage with every chunk tells how many tokens it carries: usually one, more when the API server falls behind.
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        answer = self._client.exchange("/v1/chat/completions" if self._form == "chat" else "/v1/completions", body, stream)
        _, final = answer.events[-1]
        if "usage" not in final:
            raise ColdprefixError(f"vllm serve ended a stream before its usage counts. Its log: {self._server.log}")
        times: list[float] = []
        first_chunk_tokens = None
        for time_ms, event in answer.events if stream else []:
            known = count(event, "usage", "completion_tokens")
            if event.get("choices") and known is not None and known > len(times):
                first_chunk_tokens = first_chunk_tokens or known
                times += [time_ms] * (known - len(times))
        prompt_tokens, cached = count(final, "usage", "prompt_tokens"), count(final, "usage", "prompt_tokens_details", "cached_tokens")
        return Completion(
            started_at=answer.started_at,
            connect_ms=answer.connect_ms,
            total_ms=answer.total_ms,
            token_times_ms=times,
            prompt_tokens=prompt_tokens,
            cached_tokens=cached,
            evaluated_tokens=prompt_tokens - cached if prompt_tokens is not None and cached is not None else None,
            engine_prompt_ms=number(final, "metrics", "time_to_first_token_ms"),
            generated_tokens=count(final, "usage", "completion_tokens") or 0,
            first_chunk_tokens=first_chunk_tokens,
        )

    def reset(self) -> None:
        if self._client.ask("/reset_prefix_cache", {}, "success") is not True:
            raise ColdprefixError(f"vllm serve did not empty its prefix cache. Its log: {self._server.log}")

    def _read_in_force(self) -> dict[str, Any]:
        return vllm.settings_in_force(self._client.ask("/server_info?config_format=json", None, "vllm_config"), self._job)

    def in_force(self) -> dict[str, Any]:
        return {**self._in_force, "version": self._client.ask("/version", None, "version"), "command": self.command}

    def process_ids(self) -> list[int]:
        return self._server.process_ids()

    def leave(self) -> None:
        if self._owner:
            shared.give_back(self._server)
        else:
            self.close()

    def close(self) -> None:
        self._client.close()
