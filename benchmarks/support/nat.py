"""A router that translates addresses, as RFC 4787 (UDP) and RFC 5382 (TCP) sort them: in the words of RFC 3489, which
people still use.

| kind | one port outside for | lets in from |
|---|---|---|
| ``full-cone`` | each port inside | everybody |
| ``restricted`` | each port inside | addresses that were written to |
| ``port-restricted`` | each port inside | addresses and ports that were written to |
| ``symmetric`` | each port inside and each peer | the address and port that was written to |

What is not let in is dropped without a word. Nothing is ever forgotten: it is for tests of minutes.
"""

from __future__ import annotations

import itertools
import struct
from typing import Literal, get_args

Kind = Literal["full-cone", "restricted", "port-restricted", "symmetric"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_FIRST_PORT = 20_000
_TCP, _UDP = 6, 17
_CHECKSUM_AT = {_TCP: 16, _UDP: 6}
_SOURCE, _TARGET = 12, 16

_Place = tuple[bytes, int]
"""Packed IPv4 address, and port."""


class Router:
    """One host inside, one address outside. Packets are whole IPv4 packets."""

    def __init__(self, kind: Kind, outside: bytes, inside: bytes) -> None:
        self._kind, self._outside, self._inside = kind, outside, inside
        self._port_for: dict[tuple[int, int, _Place | None], int] = {}
        self._inner_port: dict[tuple[int, int], int] = {}
        self._written_to: dict[tuple[int, int], set[_Place]] = {}
        self._free_ports = itertools.count(_FIRST_PORT)

    def outward(self, packet: bytes) -> bytes | None:
        """As it leaves the router; None: it does not."""
        kind, head = packet[9], 4 * (packet[0] & 15)
        if kind not in _CHECKSUM_AT or packet[_SOURCE:_TARGET] != self._inside:
            return None
        inner, port = struct.unpack_from(">HH", packet, head)
        peer = packet[_TARGET : _TARGET + 4], port
        key = (kind, inner, peer if self._kind == "symmetric" else None)
        if key not in self._port_for:
            self._port_for[key] = next(self._free_ports)
            self._inner_port[kind, self._port_for[key]] = inner
        port = self._port_for[key]
        self._written_to.setdefault((kind, port), set()).add(peer)
        return _readdressed(packet, _SOURCE, self._outside, head, port)

    def inward(self, packet: bytes) -> bytes | None:
        """As it comes to the host; None: it is not let in."""
        kind, head = packet[9], 4 * (packet[0] & 15)
        if kind not in _CHECKSUM_AT:
            return None
        port, outer = struct.unpack_from(">HH", packet, head)
        inner = self._inner_port.get((kind, outer))
        if inner is None or not self._lets_in((packet[_SOURCE:_TARGET], port), self._written_to[kind, outer]):
            return None
        return _readdressed(packet, _TARGET, self._inside, head + 2, inner)

    def _lets_in(self, peer: _Place, written_to: set[_Place]) -> bool:
        if self._kind == "full-cone":
            return True
        if self._kind == "restricted":
            return any(ip == peer[0] for ip, _ in written_to)
        return peer in written_to


def _readdressed(packet: bytes, address_at: int, address: bytes, port_at: int, port: int) -> bytes:
    """The packet with another address and port, and checksums to match (RFC 1624)."""
    fresh = bytearray(packet)
    head = 4 * (packet[0] & 15)
    changed = [(packet[address_at : address_at + 4], address), (packet[port_at : port_at + 2], port.to_bytes(2))]
    fresh[address_at : address_at + 4] = address
    fresh[port_at : port_at + 2] = port.to_bytes(2)
    _correct(fresh, 10, changed[:1])
    at = head + _CHECKSUM_AT[packet[9]]
    if packet[9] != _UDP or fresh[at : at + 2] != bytes(2):  # UDP may go without one
        _correct(fresh, at, changed)
    return bytes(fresh)


def _correct(packet: bytearray, at: int, changed: list[tuple[bytes, bytes]]) -> None:
    total = 0xFFFF ^ int.from_bytes(packet[at : at + 2])
    for old, new in changed:
        for place in range(0, len(old), 2):
            total += (0xFFFF ^ int.from_bytes(old[place : place + 2])) + int.from_bytes(new[place : place + 2])
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    packet[at : at + 2] = (0xFFFF ^ total).to_bytes(2)
