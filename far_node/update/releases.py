"""Which version comes next: as an index says, or as a list of releases says that its publisher signed.

The file of a version carries the SHA-256 of all that it needs (``deploy/*.lock``), so whoever vouches for it vouches
for those too. Without a list the index is believed: it says which version is the newest and which SHA-256 its file has,
so a damaged file is found, and a liar of an index is not. With a list and the peer id of its publisher nothing is
installed that he did not sign; whoever holds the index can keep a newer version back, and no more.

A version is never older than the one that runs, so nobody leads a node back to a fault that has been mended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import peer_id_of
from discovery.protocol.signed import Body, read_body, sign_document
from far_node.update.errors import UpdateRefused

Channel = Literal["stable", "pre"]

PACKAGE = "far-mesh"
DOMAIN = "far-mesh releases v1"
MAX_LIST_BYTES = 4 * 1024 * 1024


def _version(text: str) -> str:
    try:
        return str(Version(text))
    except InvalidVersion:
        raise ValueError(f"{text[:40]!r} is not a version") from None


class Listed(BaseModel):
    """One release in a list: SHA-256 by the names of its files."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    version: Annotated[str, AfterValidator(_version)]
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(min_length=1)


class ReleaseList(Body):
    """What a publisher signs."""

    releases: tuple[Listed, ...] = Field(max_length=1000)


@dataclass(frozen=True)
class Release:
    """A version that may be installed, and the SHA-256 that its file may have."""

    version: Version
    hashes: tuple[str, ...]


def sign_releases(releases: Iterable[Listed], key: Ed25519PrivateKey) -> bytes:
    """A list as it is published."""
    who = peer_id_of(key.public_key())
    return sign_document(ReleaseList(peer_id=who, releases=tuple(releases)), key, DOMAIN).to_bytes()


def read_releases(data: bytes, publisher: str) -> list[Release]:
    """What the publisher signed.

    Raises:
        UpdateRefused: it is no list, or another's.
    """
    said, document = read_body(data, ReleaseList, DOMAIN, UpdateRefused, MAX_LIST_BYTES)
    if document.signer != publisher:
        raise UpdateRefused(f"the list of releases is signed by {document.signer}, not by {publisher}")
    return [Release(Version(one.version), tuple(one.files.values())) for one in said.releases]


def newest(
    releases: Iterable[Release], current: Version, channel: Channel, failed: Collection[Version]
) -> Release | None:
    """The newest that is newer than ``current``, of the channel, and has not failed here; None: there is none."""
    fit = [
        one
        for one in releases
        if one.version > current and one.version not in failed and (channel == "pre" or not one.version.is_prerelease)
    ]
    return max(fit, key=lambda one: one.version, default=None)


def listed(files: Sequence[Path]) -> list[Listed]:
    """The releases that these wheels are of.

    Raises:
        InvalidArgument: one of them cannot be read, or is none of ours.
    """
    by_version: dict[str, dict[str, str]] = {}
    for file in files:
        try:
            name, version, _, _ = parse_wheel_filename(file.name)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
        except (InvalidWheelFilename, InvalidVersion):
            raise InvalidArgument(f"{file.name} is not the name of a wheel") from None
        except OSError as error:
            raise InvalidArgument(f"{file} cannot be read: {error.strerror or error}") from None
        if name != PACKAGE:
            raise InvalidArgument(f"{file.name} is a wheel of {name}, not of {PACKAGE}")
        by_version.setdefault(str(version), {})[file.name] = digest
    return [Listed(version=version, files=files) for version, files in by_version.items()]
