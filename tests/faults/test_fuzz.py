"""Whatever comes from outside is read, or refused with our own error: nothing else may be raised, and nothing wrong accepted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import h11
import pytest
import yaml
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_data import one_trial

from coldprefix.data import parquet, tables
from coldprefix.data.raw import as_frame, read_cell
from coldprefix.engines.client import Client, Pieces, _parse_http
from coldprefix.engines.clock import long_lived
from coldprefix.engines.contract import Completion
from coldprefix.engines.llamacpp.engine import LlamaCppSettings
from coldprefix.engines.llamacpp.server import LlamaServer
from coldprefix.engines.llamacpp.wire import LlamaWire
from coldprefix.engines.reuse import exactly
from coldprefix.engines.vllm.server import VllmServer
from coldprefix.engines.vllm.wire import VllmWire
from coldprefix.errors import ColdprefixError
from coldprefix.files import sha256_of
from coldprefix.measure.verify import rejection
from coldprefix.models.gguf_check import check_gguf
from coldprefix.study.checks import parse

CELL = "phase3a/A512_B256/hit"
MANY = settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

words = st.sampled_from(
    ["usage", "timings", "cache_n", "prompt_n", "stop", "tokens", "choices", "delta", "content", "error", "prompt_tokens"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**9) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """The client collects garbage before each request: 0.2 s with all that a test session has imported."""
    with long_lived():
        yield


class Mute(Client):
    """The client without a server: it parses what it is given."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self.timeout_s = 1.0
        self.server = type("Server", (), {"name": "engine", "log": "log", "key": "", "check_alive": lambda *_: None})()

    def _send(self, request: bytes, timeout_s: float) -> Any:
        return type("Watch", (), {"started_at": 0.0})(), 0.1, self.pieces


def cut(data: bytes, places: list[int]) -> Pieces:
    marks = sorted({p % (len(data) + 1) for p in places} | {0, len(data)})
    return [(float(i), data[a:b]) for i, (a, b) in enumerate(pairwise(marks)) if a < b]


def http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@MANY
@given(st.binary(max_size=300), st.lists(st.integers(0, 1000), max_size=5))
def test_bytes_that_are_no_http(data: bytes, places: list[int]) -> None:
    with suppress(h11.RemoteProtocolError):
        _parse_http(h11.Connection(h11.CLIENT), cut(data, places))


@MANY
@given(st.lists(values, max_size=5), st.lists(st.integers(0, 5000), max_size=6), st.binary(max_size=20))
def test_streams_are_the_same_however_they_are_cut(events: list[Any], places: list[int], junk: bytes) -> None:
    """Events are found whole wherever the network cuts them; junk is an error or ignored, never another event."""
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    results: list[list[Any]] = []
    for pieces in (cut(http(body), places), cut(http(body), [])):
        try:
            results.append([event for _, event in Mute(pieces).exchange("/x", {}, stream=True).events])
        except ColdprefixError as error:
            results.append([str(error)])
    # json turns NaN into a value that differs from itself; compared as text
    assert repr(results[0]) == repr(results[1])
    with suppress(ColdprefixError):
        Mute(cut(http(body + junk), places)).exchange("/x", {}, stream=True)


def sessions(pieces: Pieces, form: str = "tokens") -> Iterator[Any]:
    """Sessions whose server answers with these bytes."""
    client = Mute(pieces)
    llama = LlamaServer.__new__(LlamaServer)
    llama._settings = LlamaCppSettings.model_construct(prompt_cache=True, host_cache_mib=0, slots=1)
    llama._wire = LlamaWire(client, form, prompt_cache=True)
    llama._wire.__dict__["forced_token"] = 262  # asked when a session starts
    vllm = VllmServer.__new__(VllmServer)
    vllm._job, vllm._model = type("Job", (), {"threads": 2})(), Path("nowhere")
    vllm._wire = VllmWire(client, form)
    for session in (llama, vllm):
        session._client, session._server = client, client.server
        yield session


@MANY
@given(st.lists(st.dictionaries(words, values, max_size=5), min_size=1, max_size=4), st.booleans())
def test_answers_of_any_shape(events: list[dict[str, Any]], stream: bool) -> None:
    """A completion or our own error; and what is not reported is None, so that the trial is rejected."""
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) if stream else json.dumps(events[0]).encode()
    for session in sessions(cut(http(body), [7, 90])):
        try:
            done = session.complete([1, 2, 3], 2, stream)
        except ColdprefixError:
            continue
        assert isinstance(done, Completion)
        assert done.cached_tokens is None or done.cached_tokens >= 0
        if done.cached_tokens is None:
            assert rejection(done, 3, exactly(0), 2, stream)


@MANY
@given(values | st.dictionaries(st.sampled_from(["success", "vllm_config", "version", "total_slots", "model_config", "content"]), values))
def test_what_a_server_says_of_itself(told: Any) -> None:
    """Settings, resets and tokenisers: read, or our own error."""
    llama, vllm = sessions([(1.0, http(json.dumps(told).encode()))], "text")
    for session in (llama, vllm):
        for act in (session.reset, session._read_in_force if session is vllm else lambda: None, lambda own=session: own.seen([1, 2])):
            with suppress(ColdprefixError):
                act()
    asked = LlamaWire(llama._client, "tokens", prompt_cache=True)
    with suppress(ColdprefixError):
        assert isinstance(asked.forced_token, int)


def mutate(data: bytes, changes: list[tuple[int, int]], keep: int | None) -> bytes:
    changed = bytearray(data[: keep % (len(data) + 1)] if keep is not None else data)
    for place, value in changes:
        if changed:
            changed[place % len(changed)] = value
    return bytes(changed)


changes = st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 255)), max_size=6)


@pytest.fixture(scope="module")
def raw_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "requests.parquet"
    parquet.write_parquet(as_frame(one_trial()), path)
    return path


@MANY
@given(changes=changes, keep=st.none() | st.integers(0, 10**6))
def test_parquet_from_elsewhere(raw_file: Path, changes: list[tuple[int, int]], keep: int | None) -> None:
    """Only the very bytes that the measuring job wrote are parsed: polars has been seen to crash on damaged ones."""
    folder = raw_file.parent / "spoilt"
    folder.mkdir(exist_ok=True)
    original = raw_file.read_bytes()
    data = mutate(original, changes, keep)
    (folder / "requests.parquet").write_bytes(data)
    job = {"state": "hit", "kinds": [{"configuration": "A512_B256", "state": "hit"}]}
    record = {"requests_sha256": sha256_of(original), "job": job}
    if data == original:
        assert read_cell(folder, CELL, record).height == 4
    else:
        with pytest.raises(ColdprefixError, match="has been edited"):
            read_cell(folder, CELL, record)


@MANY
@given(changes=changes, keep=st.none() | st.integers(0, 10**6), seal=st.booleans())
def test_tables_from_elsewhere(raw_file: Path, changes: list[tuple[int, int]], keep: int | None, seal: bool) -> None:
    """The same for what is made from raw files: of a shipped folder they look up to date, so that nothing makes them anew."""
    table = raw_file.parent / "trials.parquet"
    parquet.write_table(as_frame(one_trial()), table)
    spoilt = table.with_name("trials.parquet.sha256") if seal else table
    original = spoilt.read_bytes()
    spoilt.write_bytes(mutate(original, changes, keep))
    try:
        assert parquet.read_table(table, tables.REQUESTS).height == 4
        assert seal or spoilt.read_bytes() == original
    except ColdprefixError as error:
        assert spoilt.read_bytes() != original and f"Delete {table} and run snakemake again" in str(error)


@pytest.fixture(scope="module")
def gguf_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GGUF file and the config.json it claims to be made from."""
    import gguf
    import numpy as np

    folder = tmp_path_factory.mktemp("gguf")
    (folder / "config.json").write_text(
        json.dumps({"architectures": ["GPT2LMHeadModel"], "n_layer": 1, "n_embd": 8, "n_head": 1, "n_positions": 16})
    )
    writer = gguf.GGUFWriter(folder / "small.gguf", "gpt2")
    writer.add_context_length(16)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    writer.add_tensor("token_embd.weight", np.zeros((4, 8), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


@MANY
@given(changes=changes, keep=st.none() | st.integers(0, 10**6))
def test_gguf_from_elsewhere(gguf_model: Path, changes: list[tuple[int, int]], keep: int | None) -> None:
    """It is never taken for the model: even whole, it is another one."""
    spoilt = gguf_model / "spoilt.gguf"
    # Most of the interest is in the header.
    near = [(place % 400, value) for place, value in changes]
    spoilt.write_bytes(mutate((gguf_model / "small.gguf").read_bytes(), near, keep))
    with pytest.raises(ColdprefixError):
        check_gguf(spoilt, gguf_model)


BASE: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())
keys = st.sampled_from(
    [*BASE, "trialz", "models.gpt2.files", "llamacpp.slots", "sweeps.scaling.states", "vllm.block_tokens", "figures.font_pt"]
)


@MANY
@given(st.dictionaries(keys, values, min_size=1, max_size=3))
def test_configurations_of_any_shape(changed: dict[str, Any]) -> None:
    """Valid, or refused with a line for each mistake that starts with a key's path."""
    document = json.loads(json.dumps(BASE))
    for path, value in changed.items():
        *sections, key = path.split(".")
        target = document
        for section in sections:
            target = target[section] if isinstance(target, dict) and isinstance(target.get(section), dict) else {}
        target[key] = value
    try:
        parse(document)
    except ColdprefixError as error:
        _, *lines = str(error).splitlines()
        assert lines and all(line.strip() for line in lines)


def test_the_fuzzed_answers_can_also_be_right() -> None:
    """So that the tests above are about something: a good answer passes through the same code."""
    good = {"stop": True, "tokens_evaluated": 3, "tokens_predicted": 2, "timings": {"cache_n": 0, "prompt_n": 3, "prompt_ms": 1.0}}
    llama = next(sessions([(1.0, http(json.dumps(good).encode()))]))
    done = llama.complete([1, 2, 3], 2, stream=False)
    assert rejection(done, 3, exactly(0), 2, streamed=False) is None
