"""What a node is told at its start, checked once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from discovery.dht.keys import DEFAULT_PREFIX
from discovery.protocol.announcement import MAX_MODEL_ID_LENGTH, Dtype, Quantization
from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import Wallet

DEFAULT_HOST_MADDR = "/ip4/0.0.0.0/tcp/31330"
DEFAULT_IDENTITY = Path("~/.far/identity")
DEFAULT_CACHE_BYTES = 1 << 30
DEFAULT_MAX_SESSIONS = 64


@dataclass(frozen=True)
class NodeConfig:
    """One node. ``blocks`` None means all blocks of the model; ``device`` is a torch device or ``auto``."""

    model: str
    wallet: Wallet
    initial_peers: tuple[str, ...]
    model_id: str | None = None
    blocks: tuple[int, int] | None = None
    quantization: Quantization = "none"
    dtype: Dtype | None = None
    device: str = "auto"
    threads: int | None = None
    identity: Path = DEFAULT_IDENTITY
    host_maddrs: tuple[str, ...] = (DEFAULT_HOST_MADDR,)
    public_maddrs: tuple[str, ...] = ()
    prefix: str = DEFAULT_PREFIX
    map_ports: bool = False
    cache_bytes: int = DEFAULT_CACHE_BYTES
    max_sessions: int = DEFAULT_MAX_SESSIONS

    def __post_init__(self) -> None:
        if not self.initial_peers:
            raise InvalidArgument("a node needs --initial-peers: the address of a bootstrap peer of its swarm")
        if self.model_id is not None and not 1 <= len(self.model_id) <= MAX_MODEL_ID_LENGTH:
            raise InvalidArgument(f"--model-id takes 1 to {MAX_MODEL_ID_LENGTH} characters")
        if self.threads is not None and self.threads < 1:
            raise InvalidArgument("--threads must be at least 1")
        if self.cache_bytes <= 0 or self.max_sessions <= 0:
            raise InvalidArgument("the cache budget and the number of sessions must be positive")


def parse_blocks(text: str) -> tuple[int, int]:
    """``"a:b"`` as ``(a, b)``, end exclusive.

    Raises:
        InvalidArgument: not of this form, or empty.
    """
    match = re.fullmatch(r"([0-9]{1,4}):([0-9]{1,4})", text.strip())
    if not match or int(match[1]) >= int(match[2]):
        raise InvalidArgument(f"--blocks {text!r} is not a range a:b with a < b, such as 0:8")
    return int(match[1]), int(match[2])


def parse_public_address(text: str) -> str:
    """``IP:PORT`` or a multiaddr, as a multiaddr.

    Raises:
        InvalidArgument: neither.
    """
    if text.startswith("/"):
        return text
    match = re.fullmatch(r"((?:[0-9]{1,3}\.){3}[0-9]{1,3}):([0-9]{1,5})", text)
    if not match:
        raise InvalidArgument(f"--public-addr {text!r} is neither IP:PORT nor a multiaddr")
    return f"/ip4/{match[1]}/tcp/{match[2]}"
