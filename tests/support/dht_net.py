"""A network in memory for hivemind's DHT: all of it is real but the daemons and the wires between them.

And those who lie on it: each kind of liar is a protocol that answers as a real one would, but for what it lies about.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemind.dht.node import DHTNode
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.p2p import P2PContext, PeerID
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer
from hivemind.utils.multiaddr import Multiaddr

from discovery.dht.board import Board
from discovery.dht.node import SwarmNode, id_of
from discovery.dht.validator import AnnouncementValidator
from discovery.protocol.ids import peer_id_of

PREFIX = "far"


class Net:
    """Who is there, and who reaches whom."""

    def __init__(self) -> None:
        self.wires: dict[PeerID, Wire] = {}
        self.is_cut: Callable[[PeerID, PeerID], bool] = lambda _a, _b: False
        self.messages = self.bytes = 0

    def wire(self, peer_id: PeerID | None = None) -> Wire:
        """One more end."""
        wire = self.wires[peer_id] if peer_id in self.wires else Wire(self, peer_id or new_peer_id())
        self.wires[wire.peer_id] = wire
        return wire


class Wire:
    """What hivemind's DHT needs of a daemon."""

    def __init__(self, net: Net, peer_id: PeerID) -> None:
        self._net, self.peer_id, self._client = net, peer_id, self
        self._handlers: dict[str, tuple[Any, Any]] = {}

    @property
    def maddr(self) -> str:
        """As an initial peer."""
        return f"/ip4/192.0.2.1/tcp/31337/p2p/{self.peer_id}"

    async def add_protobuf_handler(self, name: str, handler: Any, input_type: Any, **_more: Any) -> None:
        self._handlers[name] = handler, input_type

    async def remove_protobuf_handler(self, name: str, **_more: Any) -> None:
        self._handlers.pop(name, None)

    async def call_protobuf_handler(self, peer_id: PeerID, name: str, request: Any, output_type: Any) -> Any:
        there = self._net.wires.get(peer_id)
        if there is None or name not in there._handlers or self._net.is_cut(self.peer_id, peer_id):
            raise ConnectionError("nobody is there")
        handler, input_type = there._handlers[name]
        await asyncio.sleep(0)
        told = input_type.FromString(request.SerializeToString())
        answer = (await handler(told, P2PContext(name, peer_id, self.peer_id))).SerializeToString()
        self._net.messages, self._net.bytes = self._net.messages + 1, self._net.bytes + len(answer)
        return output_type.FromString(answer)

    async def connect(self, _peer: PeerID, _maddrs: Sequence[Multiaddr]) -> None:
        return None

    async def list_peers(self) -> list[Any]:
        return []


def new_peer_id() -> PeerID:
    """Of a key of its own."""
    return PeerID.from_base58(peer_id_of(Ed25519PrivateKey.generate().public_key()))


def ids_next_to(key: str, count: int, among: int) -> list[PeerID]:
    """The peer ids next to a key, of so many that somebody made for it."""
    place = DHTID.generate(source=key)
    return sorted((new_peer_id() for _ in range(among)), key=lambda one: place.xor_distance(id_of(one)))[:count]


async def join(net: Net, *through: Wire, peer_id: PeerID | None = None, is_client: bool = False) -> SwarmNode:
    """An honest peer, which looks for others only when it is told to."""
    node = await SwarmNode.join(
        net.wire(peer_id), AnnouncementValidator(PREFIX), [one.maddr for one in through], is_client
    )
    node._keeping.cancel()
    return node


async def join_as_it_is(net: Net, *through: Wire, is_client: bool = False) -> DHTNode:
    """hivemind's own peer with our validator, as a measure."""
    return await DHTNode.create(
        p2p=net.wire(),
        initial_peers=[one.maddr for one in through] or None,
        client_mode=is_client,
        record_validator=AnnouncementValidator(PREFIX),
        cache_locally=False,
        strict=False,
    )


def board_of(node: DHTNode) -> Board:
    """What it reads and pins."""
    return Board(node, PREFIX)


class Liar(DHTProtocol):  # type: ignore[misc]
    """One of several who work together. It says that it stores, and stores nothing; ``_lie`` is what it answers."""

    others: Sequence[Wire] = ()

    @classmethod
    def _get_handle_name(cls, namespace: str | None, method_name: str) -> str:
        return str(DHTProtocol._get_handle_name(namespace, method_name))

    @classmethod
    async def of(cls, net: Net, peer_id: PeerID | None, through: Sequence[Wire]) -> Liar:
        """Joined, and known to those whom it has met."""
        wire = net.wire(peer_id)
        liar: Liar = await cls.create(wire, id_of(wire.peer_id), 20, 5, 5, 3.0)
        for one in through:
            await liar.call_ping(one.peer_id)
        return liar

    async def rpc_store(self, request: dht_pb2.StoreRequest, context: P2PContext) -> dht_pb2.StoreResponse:
        return dht_pb2.StoreResponse(store_ok=[True] * len(request.keys), peer=self.node_info)

    async def rpc_find(self, request: dht_pb2.FindRequest, context: P2PContext) -> dht_pb2.FindResponse:
        results = [self._lie(DHTID.from_bytes(key)) for key in request.keys]
        return dht_pb2.FindResponse(results=results, peer=self.node_info)

    def _lie(self, key: DHTID) -> dht_pb2.FindResult:
        return dht_pb2.FindResult(type=dht_pb2.NOT_FOUND)


class Silent(Liar):
    """Is known, and hangs up on who asks more than whether it is there, after ``seconds``."""

    seconds = 0.0

    async def rpc_store(self, request: dht_pb2.StoreRequest, context: P2PContext) -> dht_pb2.StoreResponse:
        await asyncio.sleep(self.seconds)
        raise ConnectionResetError

    async def rpc_find(self, request: dht_pb2.FindRequest, context: P2PContext) -> dht_pb2.FindResponse:
        await asyncio.sleep(self.seconds)
        raise ConnectionResetError


class Crowding(Liar):
    """Has nothing, and names its friends, each of them right beside the key."""

    def _lie(self, key: DHTID) -> dht_pb2.FindResult:
        result = dht_pb2.FindResult(type=dht_pb2.NOT_FOUND)
        for number, one in enumerate(self.others):
            result.nearest_node_ids.append(DHTID(int(key) ^ (number + 1)).to_bytes())
            result.nearest_peer_ids.append(one.peer_id.to_bytes())
        return result


class Eclipsing(Liar):
    """Has nothing, and names none but its friends, where they stand."""

    def _lie(self, key: DHTID) -> dht_pb2.FindResult:
        result = dht_pb2.FindResult(type=dht_pb2.NOT_FOUND)
        for one in sorted(self.others, key=lambda wire: key.xor_distance(id_of(wire.peer_id)))[:20]:
            result.nearest_node_ids.append(id_of(one.peer_id).to_bytes())
            result.nearest_peer_ids.append(one.peer_id.to_bytes())
        return result


class Repeating(Liar):
    """Keeps what it was told first, for ever, and says that nothing is newer."""

    first: dict[DHTID, DictionaryDHTValue]

    async def rpc_store(self, request: dht_pb2.StoreRequest, context: P2PContext) -> dht_pb2.StoreResponse:
        first = self.__dict__.setdefault("first", {})
        for key, subkey, value, ends in zip(
            request.keys, request.subkeys, request.values, request.expiration_time, strict=True
        ):
            with first.setdefault(DHTID.from_bytes(key), DictionaryDHTValue()).freeze() as kept:
                if subkey != self.IS_DICTIONARY:
                    kept.store(self.serializer.loads(subkey), value, ends)
        return await super().rpc_store(request, context)

    def _lie(self, key: DHTID) -> dht_pb2.FindResult:
        with self.__dict__.get("first", {}).get(key, DictionaryDHTValue()).freeze() as kept:
            return told(kept)


class Forging(Liar):
    """Tells something that nobody has signed, beside nothing else, and says that it lives for ever."""

    def _lie(self, key: DHTID) -> dht_pb2.FindResult:
        forged = DictionaryDHTValue()
        forged.store(str(self.node_id), MSGPackSerializer.dumps(b"{}"), time.time() + 1000)
        return told(forged)


class Interrupting(Liar):
    """Tells an empty list which lives for ever: hivemind looks no further."""

    def _lie(self, key: DHTID) -> dht_pb2.FindResult:
        return told(DictionaryDHTValue())


def told(records: DictionaryDHTValue, ends: float = float("inf")) -> dht_pb2.FindResult:
    """An answer with these records."""
    return dht_pb2.FindResult(
        type=dht_pb2.FOUND_DICTIONARY, value=MSGPackSerializer.dumps(records), expiration_time=ends
    )


LIARS: tuple[type[Liar], ...] = (Silent, Liar, Crowding, Eclipsing, Repeating, Forging, Interrupting)


async def crowd(net: Net, kind: type[Liar], ids: Sequence[PeerID | None], honest: Sequence[Wire]) -> list[Liar]:
    """Liars of a kind, who know each other, and whom these honest peers know."""
    liars = [await kind.of(net, one, honest) for one in ids]
    wires = [net.wires[liar.p2p.peer_id] for liar in liars]
    for liar in liars:
        liar.others = wires
    return liars
