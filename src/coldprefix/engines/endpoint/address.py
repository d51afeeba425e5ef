"""Where a running server is, by its URL, and whether we may talk to it without being told that it is somebody else's machine."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from coldprefix.errors import ColdprefixError

FORMS = "http://127.0.0.1:8080, https://host/path, or unix:///path/to/socket"


@dataclass(frozen=True)
class Address:
    """A server's address.

    Attributes:
        url: as it was given.
        host, port: of TCP; "" and 0 of a Unix socket.
        prefix: what stands before each path, without the "/v1" that OpenAI's clients want at the end.
        tls: is it https?
        path: of a Unix socket; None of TCP.
    """

    url: str
    host: str
    port: int
    prefix: str
    tls: bool
    path: Path | None

    @property
    def header(self) -> str:
        """What requests name as their host."""
        if self.path:
            return "localhost"
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.tls else 80) else f"{name}:{self.port}"


@dataclass(frozen=True)
class Way:
    """What getting a connection took, in ms: asking for the host's address, TCP or the socket, TLS."""

    lookup_ms: float
    connect_ms: float
    tls_ms: float | None


def address_of(url: str) -> Address:
    """Read a URL. Raises ColdprefixError if it is none of ours, or holds a key."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ColdprefixError(f"{url!r} is no address ({error}); write {FORMS}") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ColdprefixError(
            "the URL must hold no user, key, query or fragment: a key stands in an environment variable, which api_key_env (--api-key-env) names"
        )
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        return Address(url, "", 0, "", False, Path(parts.path))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ColdprefixError(f"{url!r} is no address; write {FORMS}")
    prefix = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return Address(url, parts.hostname, port or (443 if parts.scheme == "https" else 80), prefix, parts.scheme == "https", None)


class Resolved:
    """An address with the places that it leads to, looked up once, so that what was allowed is what is connected to.

    Args:
        remote: may it be elsewhere than on this machine?

    Raises:
        ColdprefixError: there is no such host or socket, or it is not on this machine and ``remote`` does not allow that.
    """

    def __init__(self, address: Address, remote: bool) -> None:
        self.address = address
        began = time.perf_counter()
        if address.path:
            private, self._places = _is_private(address.path), []
        else:
            try:
                found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                raise ColdprefixError(f"{address.url}: there is no host {address.host!r} ({error})") from None
            self._places = [(family, place) for family, _, _, _, place in found]
            private = all(ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback for _, place in self._places)
        self.lookup_ms = (time.perf_counter() - began) * 1e3
        self.local = private
        if not private and not remote:
            what = "can be used by other users" if address.path else "is not on this machine"
            raise ColdprefixError(f"{address.url} {what}; if that is meant, write remote: true (--remote)")
        self._tls = ssl.create_default_context() if address.tls else None

    def connect(self, timeout_s: float) -> tuple[socket.socket, Way]:
        """A connection that stands, TLS and all.

        Raises:
            ColdprefixError: the server's certificate cannot be verified, or it does not speak TLS.
            OSError: no connection.
        """
        began = time.perf_counter()
        connection = self._plain(timeout_s)
        connected = time.perf_counter()
        tls_ms = None
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_hostname=self.address.host)
                tls_ms = (time.perf_counter() - connected) * 1e3
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise ColdprefixError(
                f"{self.address.url}: its certificate cannot be verified: {error.verify_message}. If its authority is your own, name the file of "
                "that authority's certificate in SSL_CERT_FILE; the check cannot be switched off"
            ) from None
        except (ssl.SSLError, TimeoutError) as error:
            connection.close()
            said = getattr(error, "reason", None) or f"nothing within {timeout_s:.0f} s"
            raise ColdprefixError(f"{self.address.url}: no TLS connection: {said}; is it http://?") from None
        except BaseException:
            connection.close()
            raise
        return connection, Way(self.lookup_ms, (connected - began) * 1e3, tls_ms)

    def _plain(self, timeout_s: float) -> socket.socket:
        places = [(socket.AF_UNIX, str(self.address.path))] if self.address.path else self._places
        for number, (family, place) in enumerate(places):
            connection = socket.socket(family)
            try:
                connection.settimeout(timeout_s)
                connection.connect(place)
                return connection
            except BaseException as error:
                connection.close()
                if not isinstance(error, OSError) or number + 1 == len(places):
                    raise
        raise OSError("no address")


def _is_private(path: Path) -> bool:
    """Can only this user reach the socket? By its own mode, or that of its folder. Raises ColdprefixError if there is none."""
    try:
        own, folder = path.stat(), path.parent.stat()
    except OSError as error:
        raise ColdprefixError(f"unix://{path}: {error.strerror}") from None
    if not stat.S_ISSOCK(own.st_mode):
        raise ColdprefixError(f"unix://{path} is no socket")
    return own.st_uid == os.getuid() and (not own.st_mode & 0o077 or (folder.st_uid == os.getuid() and not folder.st_mode & 0o077))
