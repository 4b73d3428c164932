"""One file over HTTP: bounded by what its manifest says, checked before it gets its name, resumed after a cut.

While it arrives it lies beside its place as ``.name.part``, so nothing half-written is ever taken for whole.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

import httpx

from discovery.protocol.errors import FarError, InvalidArgument, WeightsDamaged
from discovery.registry.files import SAFETENSORS, nests_too_deep
from discovery.registry.hashes import HashCache, OnBytes, file_key
from discovery.registry.headers import read_header
from far_node.errors import ModelNotFound
from far_node.models.errors import DownloadFailed, NoSpace

ATTEMPTS = 5
"""In a row without a single byte, before we give up."""

_PIECE = 1 << 20
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GGUF_MAGIC = b"GGUF"
_GONE = (401, 403, 404, 410, 451)


@dataclass(frozen=True)
class Request:
    """Where a file is fetched from."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is fetched. A git hash (SHA-1) is all that a hub tells of its small files."""

    name: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None

    def matches(self, content: bytes) -> bool:
        """Whether this is the file, for one that is held in memory."""
        digests = _Digests(self)
        digests.update(content)
        return len(content) == self.size and digests.match()


class _Digests:
    """The hashes of a file as it arrives."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._sha256 = hashlib.sha256()
        # how git names a file's content: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        self._git = hashlib.sha1(b"blob %d\0" % expected.size, usedforsecurity=False)

    def update(self, piece: bytes) -> None:
        self._sha256.update(piece)
        if self._expected.git_sha1 is not None:
            self._git.update(piece)

    def match(self) -> bool:
        expected = self._expected
        return expected.sha256 in (None, self.sha256) and expected.git_sha1 in (None, self._git.hexdigest())

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


class _Restart(Exception):
    """What has arrived cannot be gone on from."""


class Downloader:
    """Fetches files one after the other over kept connections. A context manager."""

    def __init__(self, wait: Callable[[float], None] = time.sleep) -> None:
        self._client = httpx.Client(timeout=_TIMEOUT, follow_redirects=True)
        self._wait = wait

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def read(self, request: Request, limit: int) -> bytes:
        """A small answer as a whole.

        Raises:
            ModelNotFound: the server has no such thing for us.
            DownloadFailed: it cannot be reached, or answers with an error or more than ``limit`` bytes.
        """
        try:
            with self._client.stream("GET", request.url, headers=dict(request.headers)) as answer:
                self._check(answer, request.url)
                body = bytearray()
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > limit:
                        raise DownloadFailed(f"{request.url} answers with more than {limit} bytes")
                return bytes(body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DownloadFailed(f"{request.url} cannot be read: {_reason(error)}") from None

    def size_of(self, request: Request) -> int:
        """How long a file is, by its server's word.

        Raises:
            ModelNotFound: the server has no such file for us.
            DownloadFailed: it cannot be reached, or does not say.
        """
        headers = {**request.headers, "Accept-Encoding": "identity"}
        try:
            with self._client.stream("GET", request.url, headers=headers) as answer:
                self._check(answer, request.url)
                length = answer.headers.get("Content-Length", "")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DownloadFailed(f"{request.url} cannot be read: {_reason(error)}") from None
        if not length.isdecimal():
            raise DownloadFailed(f"the server of {request.url} does not say how long the file is")
        return int(length)

    def fetch(self, request: Request, target: Path, expected: Expected, on_bytes: OnBytes) -> str:
        """Fetch a file to ``target``; its SHA-256.

        ``on_bytes`` is told of bytes as they are there, also of those of an earlier try, and with a negative number of
        those that must be fetched again.

        Raises:
            WeightsDamaged: it is not what was expected; it was deleted.
            ModelNotFound: the server has no such file for us.
            DownloadFailed: the server cannot be reached, or broke off and does not come back; what arrived is kept.
            NoSpace: the disk is full; what arrived is kept.
            InvalidArgument: ``target`` cannot be written.
        """
        arriving = _Arriving(target, expected, on_bytes)
        idle = 0
        while True:
            before = arriving.received
            try:
                self._receive(request, arriving)
                return arriving.finish()
            except _Restart:
                arriving.restart()
                idle += 1
                reason = "what it sends does not fit to what it sent before"
            except httpx.HTTPError as error:
                idle = idle + 1 if arriving.received == before else 0
                reason = _reason(error)
            except httpx.InvalidURL as error:
                raise DownloadFailed(f"{request.url} is no address: {error}") from None
            except OSError as error:
                raise disk_error(error, target) from None
            finally:
                arriving.close()
            if idle >= ATTEMPTS:
                raise DownloadFailed(f"{expected.name} could not be fetched: {reason}", file=expected.name)
            self._wait(min(8.0, 0.5 * 2**idle))

    def _receive(self, request: Request, arriving: _Arriving) -> None:
        start = arriving.resume()
        if start == arriving.expected.size:
            return
        headers = {**request.headers, "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with self._client.stream("GET", request.url, headers=headers) as answer:
            if answer.status_code == 416:
                raise _Restart
            self._check(answer, request.url)
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise DownloadFailed(f"{request.url} answers with encoded bytes that were not asked for")
            if start and answer.status_code != 206:
                arriving.restart()
            elif start and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise _Restart
            arriving.announce(answer.headers.get("Content-Length"))
            for piece in answer.iter_raw():  # as they come: what httpx gathers is lost when the connection is
                arriving.write(piece)

    @staticmethod
    def _check(answer: httpx.Response, url: str) -> None:
        if answer.status_code in _GONE:
            raise ModelNotFound(f"{url} is not there for us (HTTP {answer.status_code})")
        if answer.status_code in (408, 429) or answer.status_code >= 500:
            raise httpx.HTTPStatusError(f"HTTP {answer.status_code}", request=answer.request, response=answer)
        if answer.status_code not in (200, 206):
            raise DownloadFailed(f"{url} answers with HTTP {answer.status_code}")


class _Arriving:
    """A file on its way: what is there of it, and its hashes so far."""

    def __init__(self, target: Path, expected: Expected, on_bytes: OnBytes) -> None:
        self.expected, self._target, self._on_bytes = expected, target, on_bytes
        self.part = part_of(target)
        self.have = self.received = 0
        self._told = 0
        self._resumed = self._restarted = False
        self._file: BinaryIO | None = None
        self._digests = _Digests(expected)

    def resume(self) -> int:
        """Open what is there, read it, and tell from where to go on."""
        descriptor = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        self._begin()
        while piece := self._file.read(_PIECE):
            self._count(piece)
        if self.have > self.expected.size:
            self.restart()
        self._resumed = self._resumed or self.have > 0
        return self.have

    def restart(self) -> None:
        """Throw away what is there."""
        self._restarted = True
        if self._file is None or self._file.closed:
            self.part.unlink(missing_ok=True)
        else:
            self._file.seek(0)
            self._file.truncate()
        self._begin()

    def announce(self, content_length: str | None) -> None:
        """Refuse before a byte is written what is longer than it should be."""
        if content_length is not None and content_length.isdecimal():
            self._check_length(self.have + int(content_length))

    def write(self, piece: bytes) -> None:
        """Add what came."""
        assert self._file is not None
        self._check_length(self.have + len(piece))
        view = memoryview(piece)
        while view:  # an unbuffered file may take less than it is given
            view = view[self._file.write(view) :]
        self.received += len(piece)
        self._count(piece)

    def finish(self) -> str:
        """Check what arrived, and give it its name; its SHA-256."""
        assert self._file is not None
        expected = self.expected
        if self.have < expected.size:
            raise httpx.RemoteProtocolError(f"the server broke off after {self.have} of {expected.size} bytes")
        sha256 = self._digests.sha256
        if not self._digests.match():
            if self._resumed and not self._restarted:  # perhaps it began as another file; once more, from the beginning
                raise _Restart
            self._refuse(f"{expected.name} is not what its manifest says (SHA-256 {sha256})")
        try:
            check_format(self.part, expected.name)
        except WeightsDamaged as error:
            self._refuse(error.message)
        os.fsync(self._file.fileno())
        self.part.replace(self._target)
        sync_directory(self._target.parent)
        with HashCache() as cache:
            cache.keep(file_key(self._target), sha256)
        return sha256

    def close(self) -> None:
        """Let go of the file; what arrived stays."""
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        self.have, self._digests = 0, _Digests(self.expected)
        self._tell()

    def _count(self, piece: bytes) -> None:
        self.have += len(piece)
        self._digests.update(piece)
        self._tell()

    def _tell(self) -> None:
        if self.have != self._told:
            self._on_bytes(self.have - self._told)
            self._told = self.have

    def _check_length(self, length: int) -> None:
        expected = self.expected
        if length > expected.size:
            self._refuse(f"{expected.name} is longer than the {expected.size} bytes of its manifest")

    def _refuse(self, message: str) -> None:
        self.close()
        self.part.unlink(missing_ok=True)
        raise WeightsDamaged(f"{message}; it was deleted", file=self.expected.name)


def part_of(target: Path) -> Path:
    """Where a file lies while it arrives."""
    return target.with_name(f".{target.name}.part")


def check_format(path: Path, name: str) -> None:
    """Check that a file begins as its name says, and that no JSON in it overflows the stack of who reads it.

    Raises:
        WeightsDamaged: it does not.
    """
    if name.endswith(SAFETENSORS):
        read_header(path, name)
    elif name.endswith(".gguf"):
        with path.open("rb") as file:
            if file.read(len(_GGUF_MAGIC)) != _GGUF_MAGIC:
                raise WeightsDamaged(f"{name} is not a GGUF file", file=name)
    elif name.endswith(".json") and nests_too_deep(path.read_bytes()):
        raise WeightsDamaged(f"{name} is nested deeper than any file of a model", file=name)


def disk_error(error: OSError, target: Path) -> FarError:
    """What a failure to write ``target`` means."""
    if error.errno in _FULL:
        return NoSpace(f"the disk of {target.parent} is full; make room and try again")
    return InvalidArgument(f"{target} cannot be written: {error.strerror}")


def sync_directory(directory: Path) -> None:
    """Make the names in a directory outlast a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
