"""How far away a peer is: the time that a question to it takes, and an estimate from several of them."""

from __future__ import annotations

import asyncio
import time

from discovery.dht.transport import Channel, Transport
from discovery.protocol.errors import PeerUnavailable
from discovery.protocol.messages import INFO_PROTOCOL, MAX_PLAIN_BYTES, InfoRequest, NodeInfo, PeerAddress

_RISE = 0.1


async def round_trip(transport: Transport, address: PeerAddress, model_digest: str, patience: float) -> float:
    """Milliseconds until a node answers a question about a model it serves, on a stream that is open.

    Args:
        patience: seconds for all of it.

    Raises:
        FarError: it cannot be reached, or does not answer as a node does.
    """
    try:
        async with asyncio.timeout(patience):
            stream = await transport.open(address, INFO_PROTOCOL)
            try:
                channel = Channel(stream)
                asked_at = time.perf_counter()
                await channel.send(InfoRequest(model_digest))
                await channel.expect(NodeInfo, MAX_PLAIN_BYTES)
                return 1000.0 * (time.perf_counter() - asked_at)
            finally:
                await stream.close()
    except TimeoutError:
        transport.doubt(address.peer_id)
        raise PeerUnavailable(f"{address.peer_id} did not answer", peer_id=address.peer_id) from None


def smoothed(old: float | None, sample: float) -> float:
    """The estimate after one more sample, in the unit of both.

    What is above the least is time that something else took, so the estimate falls at once and rises slowly: a path
    that has become longer is believed after some twenty samples.
    """
    if old is None or sample <= old:
        return sample
    return old + _RISE * (sample - old)
