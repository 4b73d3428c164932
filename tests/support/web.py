"""HTTP servers of tests: a hub, and whatever misbehaves, each in a thread, with a record of what it was asked for."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0" * 39 + "1"


@dataclass
class Hub:
    """A repository served from a directory, as a hub serves it: a listing with hashes, and files by range.

    ``asked`` are the paths of all requests, ``sent`` the bytes of each file that were sent. ``cut_after``: the next
    answers with a file break off after so many bytes, one for each number. ``changed``: content that is sent in the
    place of a file's own, while the listing stays as it was. ``in_git``: large files without a SHA-256 in the listing.
    ``more_files`` and ``odd_sibling`` are listed and not there.
    """

    directory: Path
    repository: str = "far/tiny"
    asked: list[str] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    ranges: list[str] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    changed: dict[str, bytes] = field(default_factory=dict)
    in_git: set[str] = field(default_factory=set)
    more_files: dict[str, int] = field(default_factory=dict)
    odd_sibling: dict[str, Any] | None = None
    url: str = ""

    def files_asked(self) -> set[str]:
        """Names of the files that were asked for."""
        return {path.rpartition("/")[2] for path in self.asked if "/resolve/" in path}

    def about(self) -> dict[str, Any]:
        """What the hub says of the repository."""
        siblings = []
        for file in sorted(self.directory.iterdir()):
            data = file.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
            sibling: dict[str, Any] = {"rfilename": file.name, "size": len(data), "blobId": git}
            if file.suffix in (".safetensors", ".bin", ".gguf") and file.name not in self.in_git:
                sha256 = hashlib.sha256(data).hexdigest()
                sibling["lfs"] = {"size": len(data), "sha256": sha256, "pointerSize": 134}
            siblings.append(sibling)
        siblings += [{"rfilename": name, "size": size, "blobId": "0" * 40} for name, size in self.more_files.items()]
        siblings += [self.odd_sibling] if self.odd_sibling else []
        return {"id": self.repository, "modelId": self.repository, "sha": COMMIT, "siblings": siblings}


class _HubHandler(BaseHTTPRequestHandler):
    def __init__(self, hub: Hub, *args: Any) -> None:
        self._hub = hub
        super().__init__(*args)

    def do_GET(self) -> None:
        hub, path = self._hub, self.path.split("?")[0]
        hub.asked.append(path)
        name = path.rpartition("/")[2]
        if path.startswith(f"/api/models/{hub.repository}"):
            self._send(json.dumps(hub.about()).encode(), "application/json")
        elif path.startswith(f"/{hub.repository}/resolve/{COMMIT}/") and (hub.directory / name).is_file():
            self._send_file(name, hub.changed.get(name, (hub.directory / name).read_bytes()))
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _send(self, data: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send_file(self, name: str, data: bytes) -> None:
        hub = self._hub
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        self.send_response(206 if match else 200)
        if match:
            hub.ranges.append(f"{name}:{start}")
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        body = data[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if hub.cut_after:
            body = body[: hub.cut_after.pop(0)]
            self.close_connection = True
        self.wfile.write(body)
        hub.sent[name] = hub.sent.get(name, 0) + len(body)


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """An HTTP server with this handler; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def a_hub(directory: Path) -> Iterator[Hub]:
    """A hub with one repository."""
    hub = Hub(directory)
    with serving(functools.partial(_HubHandler, hub)) as url:
        hub.url = url
        yield hub


Answer = tuple[int, dict[str, str | None], bytes]
"""Status, headers (None for one that is not sent), body."""


@contextmanager
def answering(answer: Callable[[str, str | None], Answer], tokens: list[str | None] | None = None) -> Iterator[str]:
    """A server that answers each GET with what ``answer(path, range header)`` gives, and closes the connection.

    Args:
        tokens: gets what each request showed as its authorization.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if tokens is not None:
                tokens.append(self.headers.get("Authorization"))
            status, headers, body = answer(self.path, self.headers.get("Range"))
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            self.close_connection = True
            try:
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):  # the client has read enough
                return

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(Handler) as url:
        yield url
