"""Whom we talk to: this machine, unless somebody says otherwise; and no key in an address."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from coldprefix.engines.endpoint.address import Resolved, address_of
from coldprefix.engines.endpoint.client import key_of
from coldprefix.engines.endpoint.words import text_of
from coldprefix.errors import ColdprefixError


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://127.0.0.1:8080", ("127.0.0.1", 8080, "", False, "127.0.0.1:8080")),
        ("http://127.0.0.1:8080/v1/", ("127.0.0.1", 8080, "", False, "127.0.0.1:8080")),
        ("https://host/llm/v1", ("host", 443, "/llm", True, "host")),
        ("http://[::1]:81/a", ("::1", 81, "/a", False, "[::1]:81")),
    ],
)
def test_addresses_are_read(url: str, parts: tuple[str, int, str, bool, str]) -> None:
    found = address_of(url)
    assert (found.host, found.port, found.prefix, found.tls, found.header) == parts


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://", "http://host:99999", "unix:relative", "http://host:port"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ColdprefixError, match="is no address"):
        address_of(url)


@pytest.mark.parametrize("url", ["https://user:sk-secret@host", "https://host/?key=sk-secret", "https://host/#sk-secret"])
def test_a_key_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ColdprefixError, match="environment variable") as caught:
        address_of(url)
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://192.0.2.1:80", "http://0.0.0.0:80", "http://[2001:db8::1]:80"])
def test_another_machine_needs_a_word(url: str) -> None:
    with pytest.raises(ColdprefixError, match="is not on this machine; if that is meant, write remote: true"):
        Resolved(address_of(url), remote=False)
    assert not Resolved(address_of(url), remote=True).local


def test_this_machine_needs_none() -> None:
    assert all(Resolved(address_of(f"http://{host}:1"), remote=False).local for host in ("127.0.0.1", "127.8.9.1", "localhost"))


def test_a_socket_is_private_by_its_mode_or_its_folders() -> None:
    with tempfile.TemporaryDirectory() as temporary, socket.socket(socket.AF_UNIX) as listening:
        place = Path(temporary) / "s"
        listening.bind(str(place))
        address = address_of(f"unix://{place}")
        place.chmod(0o666)
        assert Resolved(address, remote=False).local  # its folder is private
        Path(temporary).chmod(0o755)
        with pytest.raises(ColdprefixError, match="can be used by other users"):
            Resolved(address, remote=False)
        place.chmod(0o600)
        assert Resolved(address, remote=False).local
        (Path(temporary) / "file").touch()
        with pytest.raises(ColdprefixError, match="is no socket"):
            Resolved(address_of(f"unix://{temporary}/file"), remote=True)


def test_a_key_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_of(None) == ""
    monkeypatch.setenv("OWN_KEY", "  ")
    for name in ("OWN_KEY", "NO_SUCH_KEY"):
        os.environ.pop("NO_SUCH_KEY", None)
        with pytest.raises(ColdprefixError, match=f"{name} holds no key"):
            key_of(name)
    monkeypatch.setenv("OWN_KEY", "sk-1\r\nHost: other")
    with pytest.raises(ColdprefixError, match="holds no key"):
        key_of("OWN_KEY")


def test_each_number_has_a_word_of_its_own() -> None:
    words = text_of(range(30_000)).split()
    assert len(set(words)) == 30_000
