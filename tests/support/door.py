"""A stranger at the door of a node: open a session, send, hear the answer."""

from __future__ import annotations

import secrets
from typing import Any

from discovery.dht.memory import MemoryTransport
from discovery.dht.transport import Channel
from discovery.protocol.errors import FarError
from discovery.protocol.ids import PeerId, new_session_id
from discovery.protocol.messages import (
    SESSION_PROTOCOL,
    Close,
    Failure,
    Open,
    Opened,
    PeerAddress,
    ReceiptIssued,
    Step,
)
from discovery.protocol.receipt import read_receipt
from tests.support.ring import Ring, RingNode


def opening(ring: Ring, node: RingNode, **changes: Any) -> Open:
    """What asks a node for a session of 32 positions with all its blocks."""
    fields: dict[str, Any] = {
        "session_id": new_session_id(),
        "nonce": secrets.token_bytes(16),
        "model_digest": ring.source.digest,
        "first_block": node.announcement.first_block,
        "end_block": node.announcement.end_block,
        "max_length": 32,
        "batch": 1,
        "codec": "float32",
        "previous": None,
        "next": None,
    }
    return Open(**fields | changes)


async def knock(
    ring: Ring, node: RingNode, protocol: str = SESSION_PROTOCOL, *, by: MemoryTransport | None = None
) -> Channel:
    """A stream to a node, on which nothing has been said."""
    return Channel(await (by or ring.client).open(PeerAddress(PeerId(node.peer_id)), protocol))


async def opened(ring: Ring, node: RingNode, *, by: MemoryTransport | None = None, **changes: Any) -> Channel:
    """The control stream of a session that is open."""
    channel = await knock(ring, node, by=by)
    await channel.send(opening(ring, node, **changes))
    await channel.expect(Opened)
    return channel


async def refusal(channel: Channel) -> FarError:
    """The failure that the other side reports next."""
    message = await channel.receive()
    assert isinstance(message, Failure), message
    return message.to_error()


async def serves(ring: Ring, node: RingNode, *, until_free: bool = True) -> None:
    """A whole session with this node alone: it answers and receipts."""
    channel = await opened(ring, node)
    await channel.send(Step(0, 0, ring.random_hidden(3)))
    answer = await channel.expect(Step)
    assert answer.hidden.shape == (1, 3, ring.shape.hidden_size)
    await channel.send(Close())
    issued = await channel.expect(ReceiptIssued)
    assert read_receipt(issued.document).receipt.positions == 3
    assert await channel.receive() is None
    if until_free:
        await node.until_free()
