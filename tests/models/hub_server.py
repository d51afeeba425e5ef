"""A Hugging Face Hub on 127.0.0.1, as far as hf_hub_download of huggingface_hub 2.4.0 knows it.

Large files live on a second server with another origin, like the Hub's CDN. It refuses requests that carry a token, as signed
URLs do. Every request is kept, with the bytes that were sent for it.
"""

from __future__ import annotations

import hashlib
import re
import socket
import struct
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Literal

BLOCK = 64 * 1024


@dataclass
class Request:
    """What a server saw and answered."""

    method: str
    path: str
    headers: Message
    status: int = 0
    sent: int = 0  # bytes of the body

    @property
    def file(self) -> str:
        return self.path.partition("?")[0].rsplit("/", 1)[-1]

    @property
    def range(self) -> str | None:
        return self.headers["Range"]


@dataclass
class Repository:
    """One repository: files by revision, and who may read it."""

    files: dict[str, dict[str, bytes]]
    access: Literal["public", "private", "gated"] = "public"


@dataclass
class Cut:
    """End the connection after so many bytes of a file, so many times."""

    after: int
    times: int = 1
    reset: bool = False  # a TCP reset instead of an orderly end


@dataclass
class HubServer:
    """Use it as a context manager; ``url`` is for HF_ENDPOINT."""

    repositories: dict[str, Repository]
    readers: set[str] = field(default_factory=set)  # tokens with access to private and gated repositories
    users: set[str] = field(default_factory=set)  # valid tokens without
    renamed: dict[str, str] = field(default_factory=dict)  # old name: new name
    failing: dict[str, tuple[int, dict[str, str], int]] = field(default_factory=dict)  # method: status, headers, how often
    cut: Cut | None = None
    ranges: bool = True  # a server without Range support answers with the whole file
    xet: bool = False  # announce large files as Xet's, whose storage is not here
    damaged: set[str] = field(default_factory=set)  # files that are sent with other bytes than their ETag says
    stranger: bool = False  # an ordinary web server, like the login page of a hotel's network
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> HubServer:
        self._servers = [_start(self, _Hub), _start(self, _Cdn)]
        self.url, self.cdn_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def sent(self) -> list[Request]:
        """The requests that were answered with content, of files or parts of them."""
        return [r for r in self.requests if r.method == "GET" and r.status in (200, 206)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: HubServer, handler: type[_Handler]) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), handler)


def _start(hub: HubServer, handler: type[_Handler]) -> _Server:
    server = _Server(hub, handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


def _is_large(file: str) -> bool:
    return file.endswith((".safetensors", ".bin", ".gguf"))


def etag_of(file: str, content: bytes) -> str:
    """sha256 of a file in large file storage, git's object name of any other."""
    return hashlib.sha256(content).hexdigest() if _is_large(file) else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.hub = self.server.hub
        self.request_seen = Request(self.command, self.path, self.headers)
        self.hub.requests.append(self.request_seen)
        status, headers, times = self.hub.failing.get(self.command, (0, {}, 0))
        if times:
            self.hub.failing[self.command] = (status, headers, times - 1)
            self._answer(status, headers)
        elif self.hub.stranger:
            self._answer(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>")
        else:
            self._handle()

    def _handle(self) -> None:
        raise NotImplementedError

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.request_seen.status = status
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            self.request_seen.sent = len(body)

    def _refuse(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None) -> None:
        self._answer(status, {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})})

    def _send_file(self, content: bytes, headers: dict[str, str]) -> None:
        """A file or its requested part, until the connection is cut."""
        if self.request_seen.file in self.hub.damaged:
            content = bytes(len(content))
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "") if self.hub.ranges else None
        start = int(wanted[1]) if wanted else 0
        if start >= len(content) > 0:
            self._answer(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        self.request_seen.status = 206 if wanted else 200
        self.send_response(self.request_seen.status)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for key, value in {**headers, "Content-Length": str(len(content) - start), "Accept-Ranges": "bytes"}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.hub.cut if self.hub.cut and self.hub.cut.times and len(content) > self.hub.cut.after else None
        end = max(start, cut.after) if cut else len(content)
        for position in range(start, end, BLOCK):
            self.wfile.write(content[position : min(position + BLOCK, end)])
            self.request_seen.sent = min(position + BLOCK, end) - start
        if cut:
            cut.times -= 1
            self.close_connection = True
            if cut.reset:  # closing with a zero linger time resets
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()


class _Hub(_Handler):
    def _handle(self) -> None:
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if token and token not in self.hub.readers | self.hub.users:
            self._refuse(401, None, "Invalid credentials in Authorization header")
            return
        if self.path.startswith("/api/") and "/xet-read-token/" in self.path:
            expiration = {"X-Xet-Token-Expiration": "9999999999"}
            self._answer(200, {"X-Xet-Cas-Url": f"{self.hub.cdn_url}/nothing", "X-Xet-Access-Token": "xet", **expiration})
            return
        wanted = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if not wanted:
            self._refuse(404, None, "Not Found")
            return
        name, revision, file = wanted.groups()
        if name in self.hub.renamed:
            self._answer(307, {"Location": self.path.replace(name, self.hub.renamed[name], 1)})
            return
        repository = self.hub.repositories.get(name)
        # The Hub does not say to strangers which repositories exist.
        if repository is None or (repository.access == "private" and token not in self.hub.readers):
            self._refuse(404 if token else 401, "RepoNotFound", "Repository not found" if token else "Invalid username or password.")
        elif repository.access == "gated" and token not in self.hub.readers:
            reason = "you are not in the authorized list" if token else "please log in"
            self._refuse(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted, {reason}.")
        elif revision not in repository.files:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif file not in repository.files[revision]:
            self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": revision})
        else:
            self._resolve(name, revision, file, repository.files[revision][file])

    def _resolve(self, name: str, revision: str, file: str, content: bytes) -> None:
        etag = f'"{etag_of(file, content)}"'
        headers = {"X-Repo-Commit": revision}
        if not _is_large(file):
            self._send_file(content, {**headers, "ETag": etag})
            return
        headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(len(content)), "Accept-Ranges": "bytes"}
        if self.hub.xet:
            headers |= {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": f"{self.hub.url}/api/models/{name}/xet-read-token/{revision}"}
        self._answer(
            302, {**headers, "ETag": '"of the redirect"', "Location": f"{self.hub.cdn_url}/cdn/{name}/{revision}/{file}?signature=x"}
        )


class _Cdn(_Handler):
    def _handle(self) -> None:
        wanted = re.fullmatch(r"/cdn/([^/]+/[^/]+)/([^/]+)/(.+)", self.path.partition("?")[0])
        if "Authorization" in self.headers:
            self._answer(400, {"Content-Type": "application/xml"}, b"<Error><Code>InvalidArgument</Code></Error>")
        elif not wanted:
            self._answer(404, {})
        else:
            name, revision, file = wanted.groups()
            content = self.hub.repositories[name].files[revision][file]
            self._send_file(content, {"ETag": f'"{hashlib.md5(content).hexdigest()}"'})
