"""Where a model is pulled from: a hub or a layer registry. Both give a manifest and the address of each file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from discovery.protocol.errors import InvalidArgument
from discovery.registry.manifest import MAX_MANIFEST_BYTES, FileEntry, Manifest, Origin, read_manifest
from far_node.errors import ModelNotFound
from far_node.models.download import Downloader, Expected, Request

Fetch = Callable[[Request, Expected], Path]
"""Brings a file into the model's folder, checked."""


class Source(Protocol):
    """A place that has a model."""

    @property
    def origin(self) -> Origin:
        """What is written down of it."""

    def describe(self, downloader: Downloader, fetch: Fetch) -> Manifest:
        """The manifest of the whole model; files that it cannot be made without are fetched on the way.

        Raises:
            FarError: the source has no such model, or not one that we take.
        """

    def request_of(self, entry: FileEntry) -> Request:
        """Where a file of the manifest is."""


class RegistrySource:
    """A model on a layer registry."""

    def __init__(self, url: str, model_id: str) -> None:
        """``model_id`` on the registry at ``url``.

        Raises:
            InvalidArgument: ``url`` is not an http or https address.
        """
        self._url = check_url(url)
        self._model_id = model_id

    @property
    def origin(self) -> Origin:
        """The registry's address."""
        return Origin(kind="registry", place=self._url)

    def describe(self, downloader: Downloader, fetch: Fetch) -> Manifest:
        """The registry's own manifest.

        Raises:
            ModelNotFound: it has no such model.
            DownloadFailed: it cannot be reached, or is still preparing the model.
            ProtocolViolation: its answer is no manifest, or one of another model.
        """
        try:
            body = downloader.read(Request(f"{self._base}/manifest"), MAX_MANIFEST_BYTES)
        except ModelNotFound:
            raise ModelNotFound(f"the registry at {self._url} has no model {self._model_id!r}") from None
        return read_manifest(body)

    def request_of(self, entry: FileEntry) -> Request:
        """A layer, or a file that goes with it."""
        return Request(f"{self._base}/files/{quote(entry.name, safe='')}")

    @property
    def _base(self) -> str:
        return f"{self._url}/models/{quote(self._model_id)}"


def check_url(url: str) -> str:
    """``url`` without what is superfluous at its end.

    Raises:
        InvalidArgument: it is not an http or https address.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
    except ValueError:
        valid = False
    if not valid:
        raise InvalidArgument(f"{url!r} is no address such as https://registry.example.org")
    return url.rstrip("/")
