"""What nodes say of themselves over HTTP, and how it is proven: one way for the gateway and for discovery.

The shapes are those of the specification (section 7.2) and what they lack. What is called a claim is a node's word
alone, and nothing is decided by it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from discovery.protocol.registration import is_signed_by
from discovery.web.errors import BadSignature, ProofStale

PROOF_SECONDS = 300.0
"""How far the time in a proof may be from ours."""
MAX_GPU_CHARACTERS = 100
MAX_SIGNATURE_CHARACTERS = 2 + 2 * 4096

PlainText = Annotated[str, Field(min_length=1, max_length=MAX_GPU_CHARACTERS, pattern=r"^[^\x00-\x1f\x7f]+$")]
NodeId = Annotated[str, Field(min_length=1, max_length=64, description="The node's libp2p peer id (ed25519).")]
Gigabytes = Annotated[int, Field(ge=0, le=65_536)]
HostAndPort = Annotated[
    str,
    Field(
        max_length=255,
        pattern=r"^(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?):[0-9]{1,5}$",
        description="Where the node can be reached, such as 1.2.3.4:31330.",
    ),
]
Finite = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class RegistrationRequest(BaseModel):
    """A node and the wallet it earns for. ``signature`` is the wallet's, over the sentence that names both."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "node_id": "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
                    "wallet_address": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
                    "model_id": "meta-llama/Llama-2-7b-chat-hf",
                    "gpu_model": "NVIDIA RTX 4090",
                    "vram_gb": 24,
                    "public_addr": "1.2.3.4:31330",
                    "location": "US-East",
                    "issued_at": "2026-03-01T12:00:00Z",
                    "signature": "0x…",
                }
            ]
        },
    )

    node_id: NodeId
    wallet_address: Annotated[str, Field(max_length=64)]
    model_id: Annotated[str, Field(min_length=1, max_length=255)]
    gpu_model: PlainText | None = None
    vram_gb: Gigabytes | None = None
    public_addr: HostAndPort | None = None
    location: Annotated[str, Field(max_length=100, description="A region, or a latitude and a longitude.")] | None = (
        None
    )
    issued_at: AwareDatetime
    signature: Annotated[str, Field(max_length=MAX_SIGNATURE_CHARACTERS)]


class RegistrationAnswer(BaseModel):
    """``announced``: whether the swarm hears of the node. Requests go to announced nodes alone, registered or not."""

    node_id: str
    status: Literal["registered"] = "registered"
    discovery_url: str
    heartbeat_interval_sec: int
    announced: bool


class HeartbeatRequest(BaseModel):
    """How a node is, by its own word."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "node_id": "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN",
                    "is_healthy": True,
                    "latency_ms": 45,
                    "throughput_tokens_per_sec": 12,
                    "current_requests": 3,
                    "issued_at": "2026-03-01T12:00:30Z",
                }
            ]
        },
    )

    node_id: NodeId
    is_healthy: bool
    latency_ms: Finite
    throughput_tokens_per_sec: Finite
    current_requests: Annotated[int, Field(ge=0, le=10**6)] = 0
    gpu_utilization_percent: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    vram_used_gb: Finite | None = None
    issued_at: AwareDatetime

    def claims(self) -> dict[str, Any]:
        """What is kept of it."""
        return self.model_dump(exclude={"node_id", "issued_at"}, exclude_none=True)


class HeartbeatAnswer(BaseModel):
    """``should_rebalance``: the node would do more good at ``suggested_blocks`` (``[first, end)``), by how the swarm
    covers the model at this moment. It is advice: whether to move is the owner's decision. Always false for a node that
    the swarm does not hear of."""

    status: Literal["ok"] = "ok"
    should_rebalance: bool
    suggested_blocks: tuple[int, int] | None = None
    announced: bool


def check_proof(
    node_id: str, domain: str, audience: str, issued_at: datetime, body: bytes, signature: str | None
) -> None:
    """Whether the node signed this body for ``audience`` just now. Whether it is newer than the last one is for those
    who remember to see.

    Raises:
        BadSignature: it did not.
        ProofStale: too long ago, or not yet.
    """
    now = datetime.now(UTC)
    if abs((now - issued_at).total_seconds()) > PROOF_SECONDS:
        raise ProofStale(
            f"issued_at must be within {PROOF_SECONDS:.0f} seconds of now, which is {now.isoformat()} here"
        )
    if signature is None or not is_signed_by(node_id, domain, audience, body, signature):
        raise BadSignature(f"the body was not signed by the key of {node_id}, for {audience}")
