"""Small databases of addresses in MaxMind's format: https://maxmind.github.io/MaxMind-DB/ (version 2.0)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv6Network, ip_network
from pathlib import Path
from typing import Any

_MARKER = b"\xab\xcd\xefMaxMind.com"
_SEPARATOR = bytes(16)
_BITS = 32
BUILT_AT = 1_780_000_000


def city(latitude: float, longitude: float, **more: Any) -> dict[str, Any]:
    """A record as city databases have it. ``more``: ``name``, ``country``, ``region`` and ``accuracy_radius``."""
    record: dict[str, Any] = {"location": {"latitude": latitude, "longitude": longitude}}
    if "accuracy_radius" in more:
        record["location"]["accuracy_radius"] = more["accuracy_radius"]
    if "country" in more:
        record["country"] = {"iso_code": more["country"], "names": {"en": more["country"]}}
    if "region" in more:
        record["subdivisions"] = [{"names": {"en": more["region"]}}]
    if "name" in more:
        record["city"] = {"names": {"en": more["name"]}}
    return record


def write(path: Path, networks: Mapping[str, Any], kind: str = "Test-City") -> Path:
    """A database of networks and their records; none lies within another."""
    tree: list[list[int | bytes | None]] = [[None, None]]
    for text, record in networks.items():
        _insert(tree, _as_ipv6(text), _encoded(record))
    data, places = b"", dict[bytes, int]()
    flat = b""
    for branch in tree:
        for where in branch:
            if isinstance(where, bytes) and where not in places:
                places[where] = len(data)
                data += where
            value = len(tree) if where is None else where
            flat += struct.pack(">I", len(tree) + 16 + places[value] if isinstance(value, bytes) else value)
    about = {
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": BUILT_AT,
        "database_type": kind,
        "description": {"en": "for tests"},
        "ip_version": 6,
        "languages": ["en"],
        "node_count": len(tree),
        "record_size": _BITS,
    }
    path.write_bytes(flat + _SEPARATOR + data + _MARKER + _encoded(about))
    return path


def _as_ipv6(text: str) -> IPv6Network:
    """IPv4 lies in ``::/96``."""
    network = ip_network(text)
    return network if isinstance(network, IPv6Network) else IPv6Network((int(network[0]), 96 + network.prefixlen))


def _insert(tree: list[list[int | bytes | None]], network: IPv6Network, record: bytes) -> None:
    at, bits = 0, int(network.network_address)
    for depth in range(network.prefixlen - 1):
        bit = bits >> (127 - depth) & 1
        nearer = tree[at][bit]
        if nearer is None:
            tree.append([None, None])
            nearer = tree[at][bit] = len(tree) - 1
        assert isinstance(nearer, int)
        at = nearer
    tree[at][bits >> (128 - network.prefixlen) & 1] = record


def _encoded(value: Any) -> bytes:
    if isinstance(value, str):
        return _control(2, len(value.encode())) + value.encode()
    if isinstance(value, float):
        return _control(3, 8) + struct.pack(">d", value)
    if isinstance(value, int):
        return _control(9, 8) + struct.pack(">Q", value)
    if isinstance(value, dict):
        return _control(7, len(value)) + b"".join(_encoded(key) + _encoded(one) for key, one in value.items())
    assert isinstance(value, list)
    return _control(11, len(value)) + b"".join(map(_encoded, value))


def _control(kind: int, size: int) -> bytes:
    assert size < 29, "longer ones take more bytes, and nobody here needs them"
    return bytes([kind << 5 | size]) if kind < 8 else bytes([size, kind - 7])
