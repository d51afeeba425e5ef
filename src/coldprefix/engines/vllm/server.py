"""`vllm serve` as a session: how it is started or shared, and asked what is in force."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coldprefix.engines.client import Client
from coldprefix.engines.contract import Completion, NextToken, Session
from coldprefix.engines.reuse import Memory
from coldprefix.engines.vllm.arguments import arguments, environment, settings_in_force
from coldprefix.engines.vllm.reuse import memory_of
from coldprefix.engines.vllm.wire import MODEL, VllmWire
from coldprefix.engines.wire import CHAT_TEMPLATE
from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of
from coldprefix.job import Job
from coldprefix.process.lease import Lease
from coldprefix.process.server import Server


class VllmServer(Session):
    """A `vllm serve` on a private Unix socket: of one job, or, one for each number ``process``, of all jobs of ``owner`` that need them."""

    def __init__(self, job: Job, model: Path, log: Path, owner: int | None, process: int) -> None:
        self._job, self._model = job, model
        command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model.absolute()), "--uds", "{socket}"]
        for key, value in arguments(job).items():
            flag = key.replace("_", "-")
            if value is True:
                command.append(f"--{flag}")
            elif value is False:
                command += [] if key in ("enforce_eager", "trust_remote_code") else [f"--no-{flag}"]
            else:
                command += [f"--{flag}", str(value)]
        command += ["--served-model-name", MODEL, "--enable-prompt-tokens-details", "--enable-per-request-metrics"]
        command += ["--disable-uvicorn-access-log"]
        # Given whether this job sends chats or not, so that all cells need the same server.
        command += [] if _has_template(model) else ["--chat-template", str(CHAT_TEMPLATE)]
        command += ["--chat-template-content-format", "string"]
        self.command = command
        # The private folder, which goes with the server, is where vLLM's processes talk to each other and keep their temporary files:
        # where one of them is killed, they leave sockets and torchinductor's folder in /tmp otherwise.
        env = environment(job) | {"VLLM_RPC_BASE_PATH": "{folder}", "TMPDIR": "{folder}"}
        # Not by the code of the cell, which is another one for each state: a run has one code.
        family = sha256_of(json.dumps([command, env, job.environment_key, job.model.identity]).encode())
        began = time.monotonic()

        def start() -> Server:
            return Server("vllm serve", command, env, log, grace_s=15.0, key_variable="VLLM_API_KEY", owner=owner)

        self._lease = Lease(owner, family, process, start)
        self._server = self._lease.server
        self._client = Client(self._server, job.protocol.timeout_s)
        self._wire = VllmWire(self._client, job.protocol.request_form)
        try:
            self._client.wait_healthy(job.protocol.start_timeout_s)
            self._in_force = self._read_in_force()
            self._lease.take(job.cell)
            self.used_before = self._lease.used_before
            if owner:
                self.reset()  # and the first warm-up proves it: it must reuse 0 tokens
        except BaseException:
            self.close()
            raise
        if self._lease.adopted:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(
                f"This process of the cell used a server that another cell had started (vllm.share_server); its log: {self._server.log}\n"
            )
        self.start_s = time.monotonic() - began

    def memory(self) -> Memory:
        return memory_of(self._in_force)

    def seen(self, prompt: Sequence[int]) -> list[int]:
        return self._wire.render(prompt).seen

    def complete(self, prompt: Sequence[int], max_tokens: int, stream: bool) -> Completion:
        return self._wire.complete(prompt, max_tokens, stream)

    def next_token(self, prompt: Sequence[int]) -> NextToken:
        return self._wire.next_token(prompt)

    def reset(self) -> None:
        if self._client.ask("/reset_prefix_cache", {}, "success") is not True:
            raise ColdprefixError(f"vllm serve did not empty its prefix cache. Its log: {self._server.log}")

    def _read_in_force(self) -> dict[str, Any]:
        return settings_in_force(self._client.ask("/server_info?config_format=json", None, "vllm_config"), self._job, self._model)

    def in_force(self) -> dict[str, Any]:
        return {**self._in_force, "version": self._client.ask("/version", None, "version"), "command": self.command}

    def process_ids(self) -> list[int]:
        return self._server.process_ids()

    def leave(self) -> None:
        self._lease.give_back()

    def close(self) -> None:
        self._lease.close()


def _has_template(model: Path) -> bool:
    """Does the model in this folder bring a chat template of its own?"""
    if (model / "chat_template.jinja").exists():
        return True
    try:
        return bool(json.loads((model / "tokenizer_config.json").read_text()).get("chat_template"))
    except (OSError, ValueError):
        return False
