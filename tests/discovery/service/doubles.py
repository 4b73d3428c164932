"""A board without a DHT, a service on it, and what nodes send to it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from eth_account import Account
from eth_account.messages import encode_defunct

from discovery.protocol.announcement import SignedAnnouncement
from discovery.protocol.oncall import SignedRegistration, register
from discovery.protocol.registration import HEADER, HEARTBEAT, REGISTRATION, consent_text, sign_request
from discovery.service.app import create_app
from discovery.service.follower import BoardLike
from discovery.service.settings import Settings
from discovery.web.server import Server, listening, url_of
from tests.support.documents import key_of, peer_of, signed_announcement

AUDIENCE = "https://discovery.test"
READY_SECONDS = 60.0


@dataclass
class Board:
    """Announcements as a DHT would have them."""

    signed: list[SignedAnnouncement] = field(default_factory=list)
    published: list[SignedAnnouncement] = field(default_factory=list)
    on_call: list[SignedRegistration] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    reads: int = 0
    is_away: bool = False

    async def all_nodes(self, known: Callable[[bytes], bool]) -> list[SignedAnnouncement]:
        """As the real one."""
        self.reads += 1
        if self.is_away:
            raise OSError("the DHT is away")
        return [one for one in self.signed if not known(one.to_bytes())]

    async def nodes_of(self, model_digest: str, known: Callable[[bytes], bool]) -> list[SignedAnnouncement]:
        """As the real one."""
        self.asked.append(model_digest)
        return [one for one in await self.all_nodes(known) if one.announcement.model_digest == model_digest]

    async def publish(self, signed: SignedAnnouncement) -> bool:
        """As the real one."""
        self.published.append(signed)
        return True

    async def register(self, signed: SignedRegistration) -> bool:
        """As the real one."""
        if self.is_away:
            raise OSError("the DHT is away")
        self.on_call.append(signed)
        return True


def settings_in(folder: Path, **changes: Any) -> Settings:
    """Settings of a service that keeps its data in ``folder``."""
    fields: dict[str, Any] = {"data_dir": folder, "public_uri": AUDIENCE, "follow_seconds": 0.02}
    return Settings(**(fields | changes))


@contextmanager
def a_service(folder: Path, board: Board | None = None, **changes: Any) -> Iterator[httpx.Client]:
    """A client of a service that follows ``board``, if there is one."""

    @asynccontextmanager
    async def open_board(_settings: Settings) -> AsyncIterator[tuple[BoardLike, tuple[str, ...]] | None]:
        yield None if board is None else (board, ())

    settings, ready = settings_in(folder, **changes), threading.Event()
    with listening("127.0.0.1", 0) as door:
        server = Server(create_app(settings, open_board), ready.set, settings.max_connections)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[door])), daemon=True)
        thread.start()
        try:
            assert ready.wait(READY_SECONDS)
            with httpx.Client(base_url=url_of(*door.getsockname()), timeout=READY_SECONDS) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def wallet_key(name: str) -> str:
    """The private key of a wallet, the same for the same name."""
    return "0x" + hashlib.sha256(f"owner of {name}".encode()).hexdigest()


def owner_of(name: str) -> str:
    """Its address."""
    return str(Account.from_key(wallet_key(name)).address)


def owned(name: str, **changes: Any) -> SignedAnnouncement:
    """An announcement of the node ``name`` for the wallet of its owner."""
    return signed_announcement(name, **({"wallet": owner_of(name)} | changes))


def sleeping(name: str, url: str | None = "https://wake.test/up", **changes: Any) -> SignedRegistration:
    """What the node ``name`` says of where it is woken, which counts for an hour."""
    about = owned(name, **changes).announcement
    return register(about, key_of(name), url, about.issued_at + 3600)


def document(signed: SignedAnnouncement | SignedRegistration) -> dict[str, str]:
    """An announcement, or what says where a node is woken, as it is sent."""
    sent: dict[str, str] = json.loads(signed.to_bytes())
    return sent


def registration(name: str, *, at: float | None = None, signer: str | None = None, **changes: Any) -> dict[str, Any]:
    """The body of a registration of the node ``name``, with the consent of ``signer``'s wallet, or its owner's."""
    moment = datetime.fromtimestamp(at or time.time(), UTC)
    audience = changes.pop("audience", AUDIENCE)
    text = consent_text(audience, peer_of(name), changes.get("wallet_address", owner_of(name)), moment)
    consent = Account.sign_message(encode_defunct(text=text), wallet_key(signer or name)).signature.to_0x_hex()
    return {
        "node_id": peer_of(name),
        "wallet_address": owner_of(name),
        "model_id": "tiny",
        "gpu_model": "NVIDIA RTX 4090",
        "vram_gb": 24,
        "public_addr": "1.2.3.4:31330",
        "location": "us-east",
        "issued_at": moment.isoformat(),
        "signature": consent,
    } | changes


def heartbeat(name: str, *, at: float | None = None, **changes: Any) -> dict[str, Any]:
    """The body of a heartbeat of the node ``name``."""
    moment = datetime.fromtimestamp(at or time.time(), UTC)
    said = {"is_healthy": True, "latency_ms": 45, "throughput_tokens_per_sec": 12, "current_requests": 3}
    return {"node_id": peer_of(name), "issued_at": moment.isoformat()} | said | changes


def send(
    client: httpx.Client,
    path: str,
    body: dict[str, Any],
    *,
    signer: str,
    domain: str | None = None,
    audience: str = AUDIENCE,
) -> httpx.Response:
    """A body signed by the key of the node ``signer``."""
    raw = json.dumps(body).encode()
    domain = domain or (HEARTBEAT if path.endswith("heartbeat") else REGISTRATION)
    headers = {HEADER: sign_request(key_of(signer), domain, audience, raw), "content-type": "application/json"}
    return client.post(path, content=raw, headers=headers)
