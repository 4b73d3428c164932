"""Nodes and the wallets that own them, with what they sign."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

import httpx
from eth_account import Account
from eth_account.messages import encode_defunct

from discovery.protocol.registration import HEADER, HEARTBEAT, REGISTRATION, consent_text, sign_request
from far_mesh.marketplace.chain.client import address_of
from far_mesh.marketplace.clock import now
from tests.far_mesh.marketplace.doubles import MODEL
from tests.support.documents import key_of, peer_of

AUDIENCE = "https://far.test"


def wallet_key(name: str) -> str:
    """The same wallet for the same name."""
    return "0x" + hashlib.sha256(f"owner of {name}".encode()).hexdigest()


def owner_of(name: str) -> str:
    """Its address."""
    return address_of(wallet_key(name))


def registration(name: str, *, signer: str | None = None, audience: str = AUDIENCE, **changes: Any) -> dict[str, Any]:
    """The body of a registration of the node ``name``, signed by the wallet of ``signer``."""
    at: datetime = changes.pop("at", None) or now()
    wallet = changes.get("wallet_address", owner_of(name))
    text = consent_text(audience, changes.get("node_id", peer_of(name)), wallet, at)
    signature = Account.sign_message(encode_defunct(text=text), wallet_key(signer or name)).signature.to_0x_hex()
    return {
        "node_id": peer_of(name),
        "wallet_address": wallet,
        "model_id": MODEL,
        "gpu_model": "NVIDIA RTX 4090",
        "vram_gb": 24,
        "public_addr": "1.2.3.4:31330",
        "location": "US-East",
        "issued_at": at.isoformat(),
        "signature": signature,
    } | changes


def heartbeat(name: str, at: datetime | None = None, **changes: Any) -> dict[str, Any]:
    """The body of a heartbeat of the node ``name``."""
    said = {"is_healthy": True, "latency_ms": 45, "throughput_tokens_per_sec": 12.5, "current_requests": 3}
    return {"node_id": peer_of(name), "issued_at": (at or now()).isoformat()} | said | changes


def send(
    http: httpx.Client,
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
    return http.post(path, content=raw, headers=headers)
