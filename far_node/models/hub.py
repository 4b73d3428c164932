"""A model in a hub repository: the hub tells the SHA-256 of every weight file before a byte is fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from discovery.protocol.errors import ProtocolViolation, WeightsDamaged
from discovery.registry.files import (
    CONFIG,
    INDEX,
    MAX_SMALL_FILE_BYTES,
    SINGLE_WEIGHTS,
    is_plain_name,
    is_small_file,
    is_unsafe,
    is_weights,
    weight_map_of,
)
from discovery.registry.hashes import HashCache
from discovery.registry.layers import block_count_of_text
from discovery.registry.manifest import FileEntry, Manifest, Origin, make_manifest
from far_node.errors import ModelNotFound, ModelUnsupported, UnsafeWeights
from far_node.models.directory import Grouping, group_by_layer
from far_node.models.download import Downloader, Expected, Request
from far_node.models.errors import DownloadFailed
from far_node.models.sources import Fetch

_SHA256, _SHA1 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")
_FILE_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


@dataclass(frozen=True)
class HubFile:
    """A file as the hub lists it: large ones with their SHA-256, small ones with their name in git."""

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None

    def is_well_formed(self) -> bool:
        """Whether a file can be checked against this at all."""
        hashes = ((self.sha256, _SHA256), (self.git_sha1, _SHA1))
        known = [found for found, _ in hashes if found is not None]
        return (
            type(self.size) is int
            and 0 <= self.size < 2**50
            and bool(known)
            and all(found is None or pattern.fullmatch(found) for found, pattern in hashes)
        )

    @property
    def expected(self) -> Expected:
        """What it is checked against."""
        return Expected(self.name, self.size, self.sha256, None if self.sha256 else self.git_sha1)


@dataclass(frozen=True)
class Listing:
    """What a repository holds at one commit."""

    repository: str
    commit: str
    files: dict[str, HubFile]

    def weights(self) -> list[HubFile]:
        """Its safetensors files, by name.

        Raises:
            UnsafeWeights: it has none.
        """
        found = [file for name, file in sorted(self.files.items()) if is_weights(name)]
        if not found:
            unsafe = sorted(name for name in self.files if is_unsafe(name))
            others = f" (only {', '.join(unsafe[:3])}, which can run code when loaded)" if unsafe else ""
            raise UnsafeWeights(f"{self.repository} has no .safetensors file{others}", model=self.repository)
        return found


def list_repository(repository: str, revision: str | None = None) -> Listing:
    """Ask the hub what a repository holds. Settings and token are those of huggingface_hub (``HF_ENDPOINT``, …).

    Raises:
        ModelNotFound: the hub has no such repository for us, or cannot be reached.
        ProtocolViolation: what it answers is no listing.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    try:
        about = HfApi().model_info(repository, revision=revision, files_metadata=True)
    except (HTTPError, HFValidationError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelNotFound(
            f"{repository!r} is neither a directory nor a model that the hub gives us: {reason}", model=repository
        ) from None
    except (TypeError, KeyError, AttributeError):
        raise _no_listing(repository) from None
    files = {}
    for sibling in about.siblings or ():
        if is_plain_name(sibling.rfilename) and sibling.size is not None:
            sha256 = sibling.lfs.sha256 if sibling.lfs else None
            file = HubFile(sibling.rfilename, sibling.size, sha256, sibling.blob_id)
            if not file.is_well_formed():
                raise _no_listing(repository)
            files[file.name] = file
    return Listing(repository, about.sha or revision or "main", files)


def _no_listing(repository: str) -> ProtocolViolation:
    return ProtocolViolation(f"the hub's listing of {repository} cannot be understood", model=repository)


class HubSource:
    """A model in a hub repository at one commit: that of ``revision`` when it is described."""

    def __init__(self, repository: str, revision: str | None = None) -> None:
        self._repository, self._revision = repository, revision

    @property
    def origin(self) -> Origin:
        """Repository and commit."""
        return Origin(kind="hub", place=self._repository, revision=self._revision)

    def describe(self, downloader: Downloader, fetch: Fetch) -> Manifest:
        """What the hub's listing says of the weights, and which of them each layer needs by the repository's index.

        Raises:
            ModelNotFound: the hub has no such repository for us or cannot be reached, or it holds no config.json.
            UnsafeWeights: no safetensors files.
            ModelUnsupported: config.json does not say how many layers there are.
            WeightsDamaged: a file is not what the listing says, or the index names files that are not listed.
        """
        listing = list_repository(self._repository, self._revision)
        self._revision = listing.commit
        published = listing.weights()
        if CONFIG not in listing.files:
            raise ModelNotFound(
                f"{listing.repository} holds no {CONFIG}, so it is not a model", model=listing.repository
            )
        small = [file for name, file in sorted(listing.files.items()) if is_small_file(name)]
        small = [file for file in small if file.size <= MAX_SMALL_FILE_BYTES]
        with HashCache() as cache:
            files = [_entry(file, cache.sha256(self._fetched(file, fetch))) for file in small]
            # those few weights that are not in large-file storage must be read to know their hash
            weights = [_entry(file, file.sha256 or cache.sha256(self._fetched(file, fetch))) for file in published]
        config = fetch(self._request(CONFIG), listing.files[CONFIG].expected)
        count = block_count_of_text(config.read_bytes())
        if count is None:
            raise ModelUnsupported(f"the {CONFIG} of {listing.repository} does not say how many layers there are")
        grouping = self._grouping(downloader, listing.files, count)
        loaded = grouping.ends.union(*grouping.layers)
        return make_manifest(
            listing.repository,
            files=files,
            weights=weights,
            shards=[entry for entry in weights if entry.name in loaded],
            layers=grouping.layers,
            ends=grouping.ends,
            layer_prefix=grouping.prefix,
        )

    def request_of(self, entry: FileEntry) -> Request:
        """A file of the repository at its commit."""
        return self._request(entry.name)

    def find_file(self, name: str) -> tuple[Request, Expected]:
        """One file of the repository, by its name.

        Raises:
            ModelNotFound: the hub has no such repository or file for us.
        """
        listing = list_repository(self._repository, self._revision)
        self._revision = listing.commit
        if name not in listing.files:
            raise ModelNotFound(f"{self._repository} has no file {name[:100]!r}", model=self._repository)
        return self._request(name), listing.files[name].expected

    def _fetched(self, file: HubFile, fetch: Fetch) -> Path:
        return fetch(self._request(file.name), file.expected)

    def _request(self, name: str) -> Request:
        from huggingface_hub import hf_hub_url, is_offline_mode
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        if is_offline_mode():
            raise DownloadFailed(f"{name} of {self._repository} is not here, and HF_HUB_OFFLINE forbids to fetch it")
        return Request(hf_hub_url(self._repository, name, revision=self._revision), build_hf_headers())

    def _grouping(self, downloader: Downloader, files: Mapping[str, HubFile], count: int) -> Grouping:
        """Which files each layer needs."""
        if SINGLE_WEIGHTS in files:
            return group_by_layer({"": SINGLE_WEIGHTS}, count)
        if INDEX not in files:
            raise WeightsDamaged(f"{self._repository} has neither {SINGLE_WEIGHTS} nor {INDEX}", file=INDEX)
        index = downloader.read(self._request(INDEX), MAX_SMALL_FILE_BYTES)
        if not files[INDEX].expected.matches(index):
            raise WeightsDamaged(f"{INDEX} is not what the hub's listing says", file=INDEX)
        weight_map = weight_map_of(index)
        unlisted = set(weight_map.values()) - files.keys()
        if unlisted:
            raise WeightsDamaged(f"{INDEX} names {min(unlisted)}, which the repository does not have", file=INDEX)
        return group_by_layer(weight_map, count)


def cached_snapshot(repository: str) -> Path | None:
    """The repository in the hub client's own cache on this machine, if it is there; it may be incomplete."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=_FILE_PATTERNS, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def cached_file(origin: Origin, name: str) -> Path | None:
    """A file of a repository in the hub client's own cache, if it was downloaded there before."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(origin.place, name, revision=origin.revision)
    return Path(found) if isinstance(found, str) else None


def _entry(file: HubFile, sha256: str) -> FileEntry:
    return FileEntry(name=file.name, size=file.size, sha256=sha256)
