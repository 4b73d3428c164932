"""Requests to addresses that strangers have named: only to what is public, and only to what was looked at.

A name is looked up once. Every address that it has must be public, and the connection goes to one of those very
addresses, with the name in TLS and in ``Host``; so a name that means something else a moment later changes nothing
(DNS rebinding). Nothing is followed, nothing of the answer but its status is read, and all of it has an end.

Not public is what the registries of special-purpose addresses of IANA say (RFC 6890 and what updates it), and of IPv6
all but global unicast (2000::/3). An address of IPv6 that carries one of IPv4 (mapped, RFC 4291; NAT64, RFC 6052) is
judged by that.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

import httpx

from discovery.web.errors import OutboundFailed, UrlRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name and a port, as text."""

LONGEST_URL = 2048
_HOST = re.compile(r"(?=.{1,253}\Z)(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)*(?!-)[a-z0-9-]{1,63}(?<!-)\Z")
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)\Z")
_PATH = re.compile(r"[!-~]*\Z")

_SPECIAL_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "168.63.129.16/32",  # no registry has it: where virtual machines on Azure meet their host
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        ),
    )
)
_GLOBAL_6 = IPv6Network("2000::/3")
_SPECIAL_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Policy:
    """What may be asked. ``networks`` may be reached although they are not public; ``http``: without TLS too."""

    ports: frozenset[int] = frozenset({443, 8443})
    networks: tuple[Network, ...] = ()
    http: bool = False
    seconds: float = 10.0


@dataclass(frozen=True)
class Target:
    """A URL that may be asked, if the addresses of its host may. ``resource`` is its path and query."""

    scheme: str
    host: str
    port: int
    resource: str

    @property
    def authority(self) -> str:
        """Host and port as ``Host`` has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"


def parse_target(url: str, policy: Policy, param: str = "url") -> Target:
    """A URL that a stranger has named. What several readers of URLs understand in several ways is refused.

    Raises:
        UrlRefused: it is none, or not one that may be asked; names ``param``.
    """

    def refused(why: str) -> UrlRefused:
        return UrlRefused(f"{param}: {why}", param=param)

    if len(url) > LONGEST_URL or not _PATH.match(url) or "\\" in url:
        raise refused(f"a URL has at most {LONGEST_URL} printable ASCII characters; write other hosts in punycode")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refused("this is no URL") from None
    schemes = ("https", "http") if policy.http else ("https",)
    if parts.scheme not in schemes or not url.lower().startswith(f"{parts.scheme}://"):
        raise refused(f"it must begin with {' or '.join(schemes)}://")
    if "@" in parts.netloc or "%" in parts.netloc or parts.fragment or not parts.hostname:
        raise refused("it must have a host, and no user, no zone and no fragment")
    port = port if port is not None else 443 if parts.scheme == "https" else 80
    if port not in policy.ports:
        raise refused(f"its port must be one of {', '.join(map(str, sorted(policy.ports)))}")
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = Target(parts.scheme, parts.hostname, port, resource)
    address = _literal(target.host)
    if address is None:
        if "[" in parts.netloc or not _HOST.match(target.host) or _NUMBER.match(target.host.rpartition(".")[2]):
            raise refused("its host is neither a name nor an address in the usual way of writing")
    elif not is_allowed(address, policy):
        raise refused("its address is not public")
    return target


def is_allowed(address: Address, policy: Policy) -> bool:
    """Whether it is public, or in one of the networks that the policy names."""
    inner = _inner(address)
    return any(inner in network for network in policy.networks) or is_public(inner)


def is_public(address: Address) -> bool:
    """Whether anybody on the internet could have this address."""
    address = _inner(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_4)
    return address in _GLOBAL_6 and not any(address in network for network in _SPECIAL_6)


def _inner(address: Address) -> Address:
    """The IPv4 address inside one of IPv6, where there is one."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, the best first, as the system orders them.

    Raises:
        OSError: it has none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Outbound:
    """Asks what the ``policy`` allows. ``trust`` is whose certificates count; by default those of the usual bundle."""

    def __init__(self, policy: Policy, lookup: Resolve = resolve, trust: ssl.SSLContext | None = None) -> None:
        self.policy = policy
        self._lookup = lookup
        self._trust = trust or httpx.create_ssl_context()

    def target(self, url: str, param: str = "url") -> Target:
        """See :func:`parse_target`."""
        return parse_target(url, self.policy, param)

    async def post(self, target: Target, body: bytes, headers: Mapping[str, str]) -> int:
        """Send ``body`` there. The status of the answer; nothing else of it is read.

        Raises:
            UrlRefused: one of the host's addresses is not public.
            OutboundFailed: nobody answered in time, or not in HTTP, or not as the host that was named.
        """
        try:
            async with asyncio.timeout(self.policy.seconds):
                return await self._send(target, await self._addresses(target), body, headers)
        except TimeoutError:
            raise OutboundFailed("there was no answer in time", reason="timeout") from None

    async def _addresses(self, target: Target) -> list[Address]:
        try:
            found = [ip_address(one) for one in await self._lookup(target.host, target.port)]
        except (OSError, ValueError):
            found = []
        if not found:
            raise OutboundFailed("the name of the host has no address", reason="no_address")
        if not all(is_allowed(address, self.policy) for address in found):
            raise UrlRefused("the host has an address that is not public")
        return found

    async def _send(self, target: Target, addresses: Sequence[Address], body: bytes, headers: Mapping[str, str]) -> int:
        headers = {**headers, "host": target.authority, "accept-encoding": "identity"}
        # Without trust_env: a proxy of the environment would look the name up anew, behind the check.
        async with httpx.AsyncClient(verify=self._trust, trust_env=False, timeout=None) as client:  # noqa: S113
            for left, address in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
                host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
                url = f"{target.scheme}://{host}:{target.port}{target.resource}"
                name = {"sni_hostname": target.host}
                try:
                    async with client.stream("POST", url, content=body, headers=headers, extensions=name) as answer:
                        return answer.status_code
                except httpx.ConnectError:
                    if not left:
                        raise OutboundFailed("nobody could be reached there", reason="unreachable") from None
                except (httpx.HTTPError, httpx.InvalidURL):
                    raise OutboundFailed("what came back was no answer", reason="no_answer") from None
        raise AssertionError("there is at least one address")
