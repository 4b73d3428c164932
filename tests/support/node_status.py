"""The answer of a node to ``far-node status``, as one gave it."""

from __future__ import annotations

from typing import Any

STATUS: dict[str, Any] = {
    "state": "ready",
    "peer_id": "12D3KooWGRUiKEqbRCVBSBpMDrMHfVbgJqBEnbY1mWwBkBZpXJuB",
    "wallet": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
    "price_units": 120,
    "addresses": ["/ip4/127.0.0.1/tcp/31330/p2p/12D3KooWGRUiKEqbRCVBSBpMDrMHfVbgJqBEnbY1mWwBkBZpXJuB"],
    "relays": None,
    "reached": {"way": "direct", "why": "12D3KooWEjun got through to 203.0.113.7:31330"},
    "host_maddrs": ["/ip4/0.0.0.0/tcp/31330"],
    "discovery": None,
    "versions": {"far-mesh": "0.1.0", "python": "3.11.2", "torch": "2.13.0"},
    "device": "cpu",
    "uptime_seconds": 3725,
    "memory_free_bytes": 3 << 30,
    "memory_total_bytes": 8 << 30,
    "resident_bytes": 1 << 29,
    "open_sessions": 2,
    "token_layers_served": 9871,
    "queued_steps": 1,
    "batch_rows": 3,
    "decode_tokens_per_second": 12.5,
    "prefill_tokens_per_second": 480.0,
    "limits": {"max_sessions": 64},
    "models": [
        {
            "model_id": "far-demo",
            "model_digest": "ab" * 32,
            "blocks": [0, 8],
            "block_count": 8,
            "quantization": "int8",
            "dtype": "float32",
            "parameter_bytes": 3 << 20,
            "cache_budget_bytes": 1 << 30,
            "expected_sessions": 64,
            "expected_session_length": 2048,
            "state": "ready",
            "parameter_count": 3_000_000,
            "cache_used_bytes": 1 << 20,
            "cache_free_bytes": (1 << 30) - (1 << 20),
            "open_sessions": 2,
            "context_length": 2048,
            "batched": True,
            "prefix_hits": 4,
            "prefix_bytes": 1 << 16,
        }
    ],
}
