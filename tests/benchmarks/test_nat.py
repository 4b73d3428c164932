"""Routers of the emulated network: whom they let in, and packets that are still whole."""

from __future__ import annotations

import socket
import struct

import pytest

from benchmarks.support.nat import KINDS, Kind, Router

INSIDE, OUTSIDE = socket.inet_aton("192.168.1.2"), socket.inet_aton("11.0.0.1")
ALICE, BOB = socket.inet_aton("11.0.0.7"), socket.inet_aton("11.0.0.8")
TCP, UDP = 6, 17


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF ^ total


def packet(kind: int, source: tuple[bytes, int], target: tuple[bytes, int], words: bytes = b"words!") -> bytes:
    """IPv4, with checksums."""
    ports, size = struct.pack(">HH", source[1], target[1]), 20 if kind == TCP else 8
    rest = (bytes(8) + b"\x50\x02\xff\xff" + bytes(4)) if kind == TCP else struct.pack(">HH", size + len(words), 0)
    body = bytearray(ports + rest + words)
    pseudo = source[0] + target[0] + struct.pack(">HH", kind, len(body))
    struct.pack_into(">H", body, 16 if kind == TCP else 6, checksum(pseudo + bytes(body)))
    head = bytearray(struct.pack(">BBHIBBH", 0x45, 0, 20 + len(body), 0, 64, kind, 0) + source[0] + target[0])
    struct.pack_into(">H", head, 10, checksum(bytes(head)))
    return bytes(head + body)


def ends(one: bytes | None) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    """Source and target of a packet that is whole."""
    assert one is not None
    assert checksum(one[:20]) == 0
    assert checksum(one[12:20] + struct.pack(">HH", one[9], len(one) - 20) + one[20:]) == 0
    source, target = struct.unpack_from(">HH", one, 20)
    return (one[12:16], source), (one[16:20], target)


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_comes_back_to_who_asked(kind: Kind, protocol: int) -> None:
    router = Router(kind, OUTSIDE, INSIDE)
    (address, port), target = ends(router.outward(packet(protocol, (INSIDE, 4001), (ALICE, 80))))
    assert (address, target) == (OUTSIDE, (ALICE, 80))
    assert ends(router.inward(packet(protocol, (ALICE, 80), (OUTSIDE, port)))) == ((ALICE, 80), (INSIDE, 4001))


@pytest.mark.parametrize(
    ("kind", "let_in"),
    [
        ("full-cone", {"ALICE:80", "ALICE:81", "BOB:80"}),
        ("restricted", {"ALICE:80", "ALICE:81"}),
        ("port-restricted", {"ALICE:80"}),
        ("symmetric", {"ALICE:80"}),
    ],
    ids=KINDS,
)
def test_others_are_let_in_by_kind(kind: Kind, let_in: set[str]) -> None:
    router = Router(kind, OUTSIDE, INSIDE)
    (_, port), _ = ends(router.outward(packet(UDP, (INSIDE, 4001), (ALICE, 80))))
    others = {"ALICE:80": (ALICE, 80), "ALICE:81": (ALICE, 81), "BOB:80": (BOB, 80)}
    came = {name for name, other in others.items() if router.inward(packet(UDP, other, (OUTSIDE, port))) is not None}
    assert came == let_in


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_symmetric_one_has_another_port_for_each_peer(kind: Kind) -> None:
    router = Router(kind, OUTSIDE, INSIDE)
    seen = {ends(router.outward(packet(TCP, (INSIDE, 4001), (peer, 80))))[0][1] for peer in (ALICE, BOB)}
    assert len(seen) == (2 if kind == "symmetric" else 1)


def test_nobody_is_let_in_who_was_not_asked_for_and_only_tcp_and_udp_pass() -> None:
    router = Router("full-cone", OUTSIDE, INSIDE)
    assert router.inward(packet(TCP, (ALICE, 80), (OUTSIDE, 20_000))) is None
    icmp = bytearray(packet(UDP, (INSIDE, 1), (ALICE, 1)))
    icmp[9] = 1
    assert router.outward(bytes(icmp)) is None
    assert router.inward(bytes(icmp)) is None
    assert router.outward(packet(TCP, (BOB, 1), (ALICE, 1))) is None, "it is not of this network"
