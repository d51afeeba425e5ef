"""A probe of a real llama-server with its default flags, of one with others, and of one behind what stands between it and us."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from door import Door, Reply
from llama import Llama

from coldprefix.engines.endpoint.session import UNDRAWN, EndpointSession
from coldprefix.engines.endpoint.settings import EndpointSettings
from coldprefix.errors import ColdprefixError
from coldprefix.probe import trials
from coldprefix.probe.run import Asked, probe

pytestmark = pytest.mark.engine
PROBE = [sys.executable, str(ROOT / "workflow" / "scripts" / "probe.py")]


@pytest.fixture(scope="module")
def gguf(tiny: Path) -> Path:
    return tiny / "gpt2-tiny-F16.gguf"


@pytest.fixture(scope="module")
def llama(gguf: Path) -> Iterator[Llama]:
    with Llama(gguf) as server:
        yield server


def asked(url: str, **more: Any) -> Asked:
    settings = {key: more.pop(key) for key in ("api_key_env", "remote") if key in more}
    return Asked(EndpointSettings(url=url, **settings), **({"rounds": 1, "tokens": 128} | more))


def test_the_program_says_what_a_default_server_does(llama: Llama) -> None:
    """By the clock of its first line, too, within ten times of what it takes on a quiet machine."""
    began = time.monotonic()
    with subprocess.Popen([*PROBE, f"{llama.url}/v1", "--rounds", "3", "--tokens", "256"], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        first = [running.stdout.readline() for _ in range(5)]
        first_s = time.monotonic() - began
        text = "".join(first) + running.stdout.read()
    assert running.returncode == 0 and first_s < 100
    assert "4 slots of 1024 tokens" in text and "reports reuse yes" in text and "single tokens" in text
    assert "a hidden tier: all 12 latest prompts were still known, and its 4 slots cannot hold them" in text
    counts = {row[0]: row[1:] for row in re.findall(r"^ +(append|edit in the middle|cold prompt) +(\d+) +(\d+) +(\d+)", text, re.M)}
    assert counts == {"append": ("280", "256", "24"), "edit in the middle": ("280", "128", "152"), "cold prompt": ("280", "0", "280")}
    assert "One server process is one sample" in text and "host_cache_mib" in text


def test_slots_without_a_tier_are_counted_and_an_edit_costs_what_stands_behind_it(
    gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = tmp_path / "a.txt", tmp_path / "b.txt"
    before.write_text("one two three four five six seven eight nine ten\nend")
    after.write_text("one two three four five nine seven eight nine ten\nend")
    with Llama(gguf, "--parallel", "1", "--cache-ram", "0") as single:
        assert probe(asked(single.url)) == 0
        whole = capsys.readouterr().out
        assert probe(asked(single.url, before=before, after=after, rounds=2, as_json=True)) == 0
    assert "it seems to have 1 slots (it says 1) and no tier behind them: of 12 prompts the 1 latest were still known" in whole
    edit = next(line for line in map(json.loads, capsys.readouterr().out.splitlines()) if line["kind"] == "edit")
    assert (edit["tokens"], edit["shared"], edit["behind"]) == (12, 5, 6)
    assert (edit["reused"], edit["computed"]) == (5, 7) and len(edit["ttft_ms"]) + len(edit["left_out"]) == 2
    assert edit["place"] == "line 1, column 25: 'six seven eight nine' became 'nine seven eight nin'"


def test_a_chat_is_sent_as_its_messages(llama: Llama, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = [{"role": "system", "content": "word " * 100}, {"role": "user", "content": "Hello"}]
    (tmp_path / "a.json").write_text(json.dumps(chat))
    (tmp_path / "b.json").write_text(json.dumps({"messages": [*chat, {"role": "assistant", "content": "Hi"}]}))
    assert probe(asked(llama.url, before=tmp_path / "a.json", after=tmp_path / "b.json", as_json=True)) == 0
    edit = next(line for line in map(json.loads, capsys.readouterr().out.splitlines()) if line["kind"] == "edit")
    assert edit["form"] == "chat" and edit["reused"] == edit["shared"] > 100 and edit["computed"] < 30


def test_a_stream_that_is_held_back_is_refused(llama: Llama) -> None:
    with (
        Door(llama.url, buffer=True) as door,
        pytest.raises(ColdprefixError, match=r"(?s)all 16 tokens arrived within .* no time to first"),
    ):
        probe(asked(door.url))


def test_a_door_that_holds_nothing_back_is_let_pass_and_changes_no_count(llama: Llama) -> None:
    with Door(llama.url) as door:
        session = EndpointSession("own", EndpointSettings(url=door.url), "tokens", 60)
        session.check_stream(UNDRAWN)
        done = session.complete(UNDRAWN, 1, stream=False)
    assert (done.prompt_tokens, done.cached_tokens, done.evaluated_tokens) == (32, 31, 1)


@pytest.mark.parametrize(
    ("status", "hint", "number"),
    [(429, "it limits how often we may ask", 6), (503, "it is not ready, or has no room", 0)],
    ids=["in mid-run", "at once"],
)
def test_a_server_that_will_not_is_one_message(llama: Llama, status: int, hint: str, number: int) -> None:
    def before(post: int, _headers: dict[str, str]) -> Reply:
        return (status, '{"error": "later"}') if post >= number else None

    with Door(llama.url, before=before) as door, pytest.raises(ColdprefixError, match=f"(?s)answer.* {status}: .*later.*{hint}") as caught:
        probe(asked(door.url))
    assert str(caught.value).count("\n") == 1


def test_a_restart_in_mid_run_is_seen_by_the_counts(gguf: Path) -> None:
    """What the server had cached is gone, so a hit is none; the trial is left out, and said."""
    with Llama(gguf) as own:
        restarted: list[int] = []
        warm: list[int] = []

        def before(post: int, _headers: dict[str, str]) -> Reply:
            if warm and not restarted:
                restarted.append(post)
                own.restart()
            return None

        with Door(own.url, before=before) as door:
            session = EndpointSession("own", EndpointSettings(url=door.url), "tokens", 60)
            prompt = list(range(600, 728))
            memory = session.memory()
            memory.ask(session.seen(prompt), 1)
            session.complete(prompt, 1, stream=False)
            warm += prompt
            promise = memory.ask(session.seen([*prompt, 900]), 1)
            done = session.complete([*prompt, 900], 1, stream=False)
        assert restarted and done.cached_tokens == 0 and not promise.holds(0) and promise.holds(128)


def test_a_server_that_dies_in_mid_run_is_one_message(gguf: Path) -> None:
    with Llama(gguf) as own:
        settings = EndpointSettings(url=own.url)
        session = EndpointSession("own", settings, "tokens", 60)
        job = trials.job_of(settings, 128, 3, 60, 1)
        with pytest.raises(
            ColdprefixError, match=r"nothing listens at .*did it run a moment ago\? Nothing that a restarted one had cached"
        ):
            trials.measure(session, job, lambda _rows: own.kill())


# --- TLS and keys -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that no authority has signed."""
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "own.pem", folder / "own.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(pem), "-days", "2"]
    subprocess.run([*command, "-subj", "/CN=own", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    return pem, context


def test_a_certificate_that_nobody_vouches_for_is_one_message(llama: Llama, certificate: tuple[Path, ssl.SSLContext]) -> None:
    with (
        Door(llama.url, tls=certificate[1]) as door,
        pytest.raises(ColdprefixError, match=r"its certificate cannot be verified: self.signed"),
    ):
        probe(asked(door.url))


def test_a_certificate_for_another_name_is_one_message(
    llama: Llama, certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with Door(llama.url, tls=certificate[1]) as door, pytest.raises(ColdprefixError, match=r"(?i)cannot be verified: hostname mismatch"):
        probe(asked(door.url.replace("127.0.0.1", "localhost")))


def test_an_authority_of_ones_own_is_named_and_tls_is_timed_apart(
    llama: Llama, certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with Door(llama.url, tls=certificate[1]) as door:
        session = EndpointSession("own", EndpointSettings(url=door.url), "tokens", 60)
        done = session.complete(list(range(600, 632)), 1, stream=False)
        noted = session.noted()
    assert done.cached_tokens == 0 and noted["tls_ms"] > 0 and noted["connect_ms"] > 0 and noted["round_trip_ms"] > 0
    assert done.connect_ms is not None and done.connect_ms >= min(way.tls_ms or 0.0 for way in session.client.ways)


def test_plain_http_where_https_is_asked_is_one_message(llama: Llama) -> None:
    with pytest.raises(ColdprefixError, match=r"no TLS connection: .*is it http://"):
        probe(asked(llama.url.replace("http:", "https:")))


def test_a_key_is_sent_and_stands_nowhere(
    llama: Llama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "sk-this-is-the-key"
    monkeypatch.setenv("OWN_KEY", key)

    def before(_post: int, headers: dict[str, str]) -> Reply:
        shown = headers.get("Authorization", "")
        return None if shown == f"Bearer {key}" else (401, f'{{"error": "wrong key {shown}"}}')

    with Door(llama.url, before=before) as door:
        assert probe(asked(door.url, api_key_env="OWN_KEY", as_json=True, out=tmp_path / "rows")) == 0
        with pytest.raises(ColdprefixError, match=r"(?s)answers 401.*wants another key"):
            probe(asked(door.url))
        monkeypatch.setenv("OWN_KEY", "sk-another-one")
        with pytest.raises(ColdprefixError, match=r"(?s)answers 401.*wrong key Bearer \(the key\)"):
            probe(asked(door.url, api_key_env="OWN_KEY"))
    written = b"".join(file.read_bytes() for file in (tmp_path / "rows").rglob("*") if file.is_file())
    assert written and key.encode() not in written and key not in capsys.readouterr().out
