"""Where updates come from, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import check_peer_id
from far_node.update.releases import Channel

if TYPE_CHECKING:
    from far_node.settings import NodeSettings


@dataclass(frozen=True)
class UpdateOptions:
    """Where updates come from.

    Attributes:
        channel: whether versions that are not released yet are taken too.
        index: a package index or a directory of wheels; None: what pip is set up for.
        releases: address or file of a signed list of releases.
        publisher: peer id whose key signed it.
    """

    channel: Channel = "stable"
    index: str | None = None
    releases: str | None = None
    publisher: str | None = None

    def __post_init__(self) -> None:
        if (self.releases is None) != (self.publisher is None):
            raise InvalidArgument("--update-releases and --update-publisher need each other: a list, and who signed it")


def check_sources(said: NodeSettings) -> None:
    """Each of the settings, whatever the others are.

    Raises:
        InvalidArgument: one of them means nothing.
        InvalidIdentity: the publisher is no peer id.
    """
    if said.update_index is not None:
        _check_source("--update-index", said.update_index, "a directory of wheels")
    if said.update_releases is not None:
        _check_source("--update-releases", said.update_releases, "a file")
    if said.update_publisher is not None:
        check_peer_id(said.update_publisher)


def update_options(said: NodeSettings) -> UpdateOptions:
    """As the settings of a node say.

    Raises:
        InvalidArgument: a list without its publisher, or the other way round.
    """
    return UpdateOptions(said.update_channel, said.update_index, said.update_releases, said.update_publisher)


def is_address(source: str) -> bool:
    """Whether this is an address of HTTP, not a path."""
    return "://" in source


def _check_source(flag: str, source: str, otherwise: str) -> None:
    if not is_address(source):
        if not Path(source).expanduser().exists():
            raise InvalidArgument(f"{flag} {source!r} is neither an https:// address nor {otherwise} that is there")
        return
    try:
        parts = urlsplit(source)
        here = parts.hostname == "localhost" or (bool(parts.hostname) and ip_address(str(parts.hostname)).is_loopback)
    except ValueError:
        here = False
    if parts.scheme != "https" and not (parts.scheme == "http" and here):
        raise InvalidArgument(f"{flag} takes an https:// address: what comes over {parts.scheme}:// anybody may change")
