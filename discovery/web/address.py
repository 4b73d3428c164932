"""Whose request it is, by address: the other end of the connection, or the one that trusted proxies name.

A proxy that is trusted appends to ``X-Forwarded-For`` or ``Forwarded`` (RFC 7239) who asked it. Anybody can send these
headers, so they are read from the end, and only as far as each next word comes from a trusted one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

Address = IPv4Address | IPv6Address
Networks = Sequence[IPv4Network | IPv6Network]

SUBSCRIBER_BITS = 64
"""An IPv6 network of this length is one subscriber: who has it can use any address in it."""

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # of RFC 9110, no secret
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PAIR = re.compile(rf"\s*({_TOKEN})=({_TOKEN}|{_QUOTED})\s*")
_PORT = r":[0-9]{1,5}"


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Attributes:
        address: IPv4 also where it came as IPv6 (``::ffff:192.0.2.1``); None where the connection has none.
        hidden: a trusted proxy did not say in a way that can be relied on for whom it asks, and ``address`` is its own.
    """

    address: Address | None
    hidden: bool = False


def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, which nobody else reaches."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def subscriber(address: Address | None) -> str:
    """Who is counted as one: an IPv4 address, or all of a network of IPv6."""
    if address is None:
        return "unknown"
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, SUBSCRIBER_BITS), strict=False))


def caller_of(connection: HTTPConnection) -> Caller:
    """Who sent a request. ``app.state.trusted_proxies`` says whose word counts."""
    peer = connection.client.host if connection.client is not None else None
    return find_caller(peer, connection.headers, connection.app.state.trusted_proxies)


def find_caller(peer: str | None, headers: Headers, trusted: Networks) -> Caller:
    """Who asks, when ``peer`` is the other end of the connection.

    Proxies append to one of the two headers and let the other one through as they got it. So where both are there and
    do not say the same, one may be invented, and neither counts.

    Args:
        trusted: proxies that append to the headers; nobody else's headers are looked at.
    """
    address = _address(peer or "")
    if address is None or not _is_in(address, trusted):
        return Caller(address)
    chains = [
        read(",".join(headers.getlist(name)))
        for name, read in (("x-forwarded-for", _x_forwarded_for), ("forwarded", _forwarded))
        if name in headers
    ]
    found = {_walk(address, chain, trusted) for chain in chains}
    return found.pop() if len(found) == 1 else Caller(address, hidden=bool(found))


def _walk(peer: Address, chain: Sequence[Address | None], trusted: Networks) -> Caller:
    """From the one who spoke to us back to the first who is not trusted. ``None`` in a chain is no address."""
    last = peer
    for named in reversed(chain):
        if named is None:
            return Caller(last, hidden=True)
        last = named
        if not _is_in(named, trusted):
            break
    return Caller(last)


def _x_forwarded_for(text: str) -> list[Address | None]:
    return [_address(part.strip()) for part in text.split(",")]


def _forwarded(text: str) -> list[Address | None]:
    """The ``for`` of every element; None where it has none. What is not of the header's grammar names nobody."""
    chain: list[Address | None] = []
    place, named = 0, dict[str, str]()
    while True:
        if (pair := _PAIR.match(text, place)) is not None:
            name, place = pair[1].lower(), pair.end()
            if name in named:
                return [None]
            named[name] = pair[2]
        if place < len(text) and text[place] not in ",;":
            return [None]
        if place >= len(text) or text[place] == ",":
            chain.append(_address(_unquoted(named.get("for", ""))))
            named = {}
        if place >= len(text):
            return chain
        place += 1


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def _address(text: str) -> Address | None:
    """``192.0.2.1``, ``2001:db8::1``, ``[2001:db8::1]``, the first and the last also with a port."""
    if bracketed := re.fullmatch(rf"\[([0-9A-Fa-f:.]+)\](?:{_PORT})?", text):
        text = bracketed[1]
    elif with_port := re.fullmatch(rf"([0-9.]+){_PORT}", text):
        text = with_port[1]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    if address.scope_id is not None:  # of a link, not of a person
        return None
    return address.ipv4_mapped or address


def _is_in(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)
