"""hivemind's DHT where strangers are: a node that believes of what peers say only what it can check.

hivemind asks our validator about records, and takes the rest of what it is told as it is. Here

- the id of a peer in the DHT is the hash of its peer id, wherever somebody tells one, so nobody stands where he likes;
- an answer counts no longer than the records in it, and never ends a search (hivemind stops at one that is said to
  live for ever, and keeps for others what is "cached", before what was stored);
- of a dictionary the good records are kept, whatever else is in it, and no more than fits into an answer;
- a record is stored once one peer has taken it, whatever others say that they did not;
- the initial peers hold each record and are asked for it too, beside those that are next to its key: ids cost nothing,
  so somebody can be next to any key with as many as he likes;
- who was lost is looked for again, and neighbours that came later are found, so that halves of a swarm that were cut
  off from each other become one again. hivemind forgets a peer that does not answer once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar
from itertools import chain, repeat
from typing import Any, Self

import structlog
from hivemind.dht.node import DHTNode
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.dht.validation import DHTRecord, RecordValidatorBase
from hivemind.p2p import P2P, P2PContext, PeerID
from hivemind.proto import dht_pb2
from hivemind.utils import ValueWithExpiration
from hivemind.utils.multiaddr import Multiaddr
from hivemind.utils.timed_storage import TimedStorage

from discovery.dht.p2p import CANNOT_OPEN, OPEN_TIMEOUT_SECONDS, to_multiaddr
from discovery.protocol.signed import MAX_DOCUMENT_BYTES

log = structlog.get_logger(__name__)

BUCKET_SIZE, DEPTH_MODULO, REPLICAS = 20, 5, 5
ANSWER_SECONDS = 3.0
BANNED_SECONDS = 30.0
"""For so long a peer that did not answer is not asked: no longer, for it may be us who were cut off."""
KEYS_PER_CALL = 4
"""As hivemind packs sixteen keys into calls."""
MOST_KEY_BYTES = 900_000
"""Of the records under one key: an answer about :data:`KEYS_PER_CALL` of them fits into a message (4 MiB)."""
MOST_ANCHORS = 8
FIRST_SECONDS, REJOIN_SECONDS = (1.0, 4.0, 10.0), 30.0
"""When others are looked for after joining, and how often from then on: those that joined at the same moment may have
missed each other."""
MOST_LOST, LOST_AT_ONCE, LOST_SECONDS = 64, 8, 3600.0
"""Peers that do not answer any more: how many are looked for, in each round, and for how long."""

_ASKED: ContextVar[set[tuple[PeerID, DHTID]] | None] = ContextVar("asked", default=None)
"""Whom the search that we are in has asked for what."""
_take = TimedStorage.store


def _take_if_later(self: Any, key: Any, value: Any, expiration_time: float) -> bool:
    """hivemind's, but for what expires no later than what is there. hivemind refuses that as well, and yet lets the
    later one go when the refused one would have expired: whoever repeats an old record would end the new one."""
    known = self.data.get(key)
    if known is not None and not known.expiration_time < expiration_time:
        return False
    return bool(_take(self, key, value, expiration_time))


TimedStorage.store = _take_if_later


def id_of(peer_id: PeerID) -> DHTID:
    """Where a peer stands in the DHT."""
    return DHTID.generate(source=peer_id.to_bytes())


class _NoCache(DHTLocalStorage):
    """Keeps nothing: what is brought "for the cache" would be told in the place of what was stored."""

    def store(self, *_arguments: Any, **_more: Any) -> bool:
        return False

    def store_subkey(self, *_arguments: Any, **_more: Any) -> bool:
        return False


class SwarmProtocol(DHTProtocol):
    """hivemind's questions and answers, with what we check of them. Others know it by hivemind's name."""

    lost: OrderedDict[PeerID, float]
    """Peers that did not answer, and since when, by a steady clock."""

    @classmethod
    async def create(cls, *arguments: Any, **options: Any) -> Self:
        """hivemind's."""
        self: Self = await super().create(*arguments, **options)
        self.cache, self.lost = _NoCache(), OrderedDict()
        return self

    @classmethod
    def _get_handle_name(cls, namespace: str | None, method_name: str) -> str:
        return str(DHTProtocol._get_handle_name(namespace, method_name))

    async def call_find(self, peer: PeerID, keys: Collection[DHTID]) -> dict[DHTID, tuple[Any, dict[DHTID, PeerID]]]:
        """hivemind's, of which is left what is true: good records until they end, and peers where they stand."""
        answer = await super().call_find(peer, keys)
        return {
            key: (_as_long_as_its_records(found), _where_they_stand(key, nearest, self.bucket_size))
            for key, (found, nearest) in (answer or {}).items()
        }

    async def rpc_store(self, request: dht_pb2.StoreRequest, context: P2PContext) -> dht_pb2.StoreResponse:
        """hivemind's, within bounds."""
        answer = await super().rpc_store(request, context)
        for key in {DHTID.from_bytes(key) for key in request.keys}:
            self._keep_within_bounds(key)
        return answer

    async def update_routing_table(self, node_id: DHTID | None, peer_id: PeerID, responded: bool = True) -> None:
        """hivemind's, for peers that stand where they belong."""
        if node_id is not None and node_id != id_of(peer_id):
            log.debug("peer_elsewhere", peer=str(peer_id))
            return
        if responded:
            self.lost.pop(peer_id, None)
        elif id_of(peer_id) in self.routing_table:
            self.lost[peer_id] = time.monotonic()
            while len(self.lost) > MOST_LOST:
                self.lost.popitem(last=False)
        await super().update_routing_table(node_id, peer_id, responded=responded)

    def _validate_dictionary(self, key_bytes: bytes, dictionary: DictionaryDHTValue) -> bool:
        """Keep the good records; whether there are any."""
        dictionary.maxsize = float("inf")
        now = time.time()
        for subkey, (value, ends) in list(dictionary.data.items()):
            record = DHTRecord(key_bytes, self.serializer.dumps(subkey), value, ends)
            if ends <= now or not self.record_validator.validate(record):
                del dictionary[subkey]
        dictionary.expiration_heap = sorted(dictionary.key_to_heap.values())
        dictionary.latest_expiration_time = max((one.expiration_time for one in dictionary.data.values()), default=0.0)
        return bool(dictionary)

    def _keep_within_bounds(self, key: DHTID) -> None:
        """Ids cost nothing: without a bound anybody makes a key too long to be told. The longest records go first, and
        of those that are as long the ones that want to stay for longer."""
        found = self.storage.get(key)
        if found is None or len(found.value) * MAX_DOCUMENT_BYTES <= MOST_KEY_BYTES:
            return
        kept = found.value
        taken = sum(len(value) for _, (value, _) in kept.items())
        if taken > MOST_KEY_BYTES:
            for subkey, (value, _) in sorted(kept.items(), key=lambda one: (-len(one[1][0]), -one[1][1])):
                del kept[subkey]
                taken -= len(value)
                if taken <= MOST_KEY_BYTES:
                    break


class SwarmNode(DHTNode):
    """A peer of the DHT. Use :meth:`join`, and :meth:`shutdown` at the end."""

    protocol: SwarmProtocol
    _anchors: Mapping[PeerID, Multiaddr]
    _keeping: asyncio.Task[None]
    _addresses: dict[PeerID, Sequence[Multiaddr]]

    @classmethod
    async def join(
        cls, p2p: P2P, validator: RecordValidatorBase, initial_peers: Sequence[str] = (), is_client: bool = False
    ) -> Self:
        """Join through initial peers (multiaddrs that name their peer ids); without any this is the first peer.

        Raises:
            RuntimeError: none of them answers.
        """
        node: Self = await cls.create(
            p2p=p2p,
            node_id=id_of(p2p.peer_id),
            client_mode=True,  # so that it answers nobody before it has our protocol
            bucket_size=BUCKET_SIZE,
            num_replicas=REPLICAS,
            record_validator=validator,
            cache_locally=False,
            cache_nearest=0,
            cache_on_store=False,
            blacklist_time=BANNED_SECONDS,
            backoff_rate=1.0,
        )
        node.protocol = await SwarmProtocol.create(
            p2p,
            node.node_id,
            BUCKET_SIZE,
            DEPTH_MODULO,
            REPLICAS,
            ANSWER_SECONDS,
            client_mode=is_client,
            record_validator=validator,
        )
        named = [maddr.rpartition("/p2p/") for maddr in initial_peers]
        node._anchors = {PeerID.from_base58(name): to_multiaddr(head) for head, _, name in named[:MOST_ANCHORS]}
        node._addresses = {}
        if node._anchors:
            if not any(await asyncio.gather(*(node._greet(peer, validate=True) for peer in node._anchors))):
                raise RuntimeError("none of the initial peers answers")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await node.find_nearest_nodes([node.node_id])
        node._keeping = asyncio.create_task(node._keep_joined())
        return node

    async def shutdown(self) -> None:
        """Answer nobody any more."""
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)
        await super().shutdown()

    async def store_many(
        self,
        keys: Sequence[Any],
        values: Sequence[Any],
        expiration_time: float | Sequence[float],
        subkeys: Sequence[Any] | None = None,
        **_more: Any,
    ) -> dict[Any, bool]:
        """Store each value under its key and subkey, at the :data:`REPLICAS` peers that are next to the key, of those
        that answer, and at the initial peers. Whether any of them took it."""
        ends = [expiration_time] * len(keys) if isinstance(expiration_time, float) else list(expiration_time)
        names = [None] * len(keys) if subkeys is None else list(subkeys)
        ids = [DHTID.generate(source=key) for key in keys]
        is_client = self.protocol.client_mode
        nearest = await self.find_nearest_nodes(set(ids), k_nearest=BUCKET_SIZE, exclude_self=is_client)
        tasks = [
            self._store_near(nearest[key_id], key_id, name, self.protocol.serializer.dumps(value), end)
            for key_id, name, value, end in zip(ids, names, values, ends, strict=True)
        ]
        stored = await asyncio.gather(*tasks)
        places = zip(keys, names, strict=True)
        return {key if name is None else (key, name): taken for (key, name), taken in zip(places, stored, strict=True)}

    async def get_many(
        self, keys: Collection[Any], sufficient_expiration_time: float | None = None, **options: Any
    ) -> dict[Any, Any]:
        """hivemind's search, and what the initial peers say that the search has not asked."""
        asked: set[tuple[PeerID, DHTID]] = set()
        ours = _ASKED.set(asked)
        try:
            found = await super().get_many(keys, sufficient_expiration_time, **options)
        finally:
            _ASKED.reset(ours)
        ids = {DHTID.generate(source=key): key for key in keys}
        rest = {peer: [one for one in ids if (peer, one) not in asked] for peer in self._anchors}
        calls = [
            self._call_find_with_blacklist(peer, some[start : start + KEYS_PER_CALL])
            for peer, some in rest.items()
            if peer != self.peer_id
            for start in range(0, len(some), KEYS_PER_CALL)
        ]
        for answer in await asyncio.gather(*calls):
            for key_id, (more, _) in (answer or {}).items():
                found[ids[key_id]] = self._joined(found[ids[key_id]], more)
        return dict(found)

    async def rejoin(self) -> None:
        """Look for those who were lost, for initial peers that we have not met, and for neighbours."""
        await self._note_addresses()
        lost, now = self.protocol.lost, time.monotonic()
        for peer in [peer for peer, since in lost.items() if now - since > LOST_SECONDS]:
            del lost[peer]
        missing = {peer for peer in self._anchors if peer not in self.protocol.routing_table} - {self.peer_id}
        some = random.sample(list(lost), min(LOST_AT_ONCE, len(lost)))
        await asyncio.gather(*(self._greet(peer) for peer in missing.union(some)))
        await self.find_nearest_nodes([self.node_id, DHTID.generate()])

    async def _keep_joined(self) -> None:
        for seconds in chain(FIRST_SECONDS, repeat(REJOIN_SECONDS)):
            await asyncio.sleep(seconds * random.uniform(0.8, 1.2))  # noqa: S311  # no secret
            try:
                await self.rejoin()
            except Exception as error:  # whatever the daemon has met: the next round may do better
                log.warning("dht_not_refreshed", reason=f"{type(error).__name__}: {error}"[:200])

    async def _greet(self, peer: PeerID, validate: bool = False) -> bool:
        """Whether a peer answers, at the address that it had."""
        maddrs = [self._anchors[peer]] if peer in self._anchors else self._addresses.get(peer, ())
        if maddrs and peer not in self.protocol.routing_table:
            with contextlib.suppress(*CANNOT_OPEN):
                async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
                    await self.p2p._client.connect(peer, maddrs)
        answered = await self.protocol.call_ping(peer, validate=validate, strict=False) is not None
        if answered:
            self.blacklist.register_success(peer)
        return answered

    async def _note_addresses(self) -> None:
        """The daemon forgets the address of a peer some time after the connection to it."""
        wanted = {*self.protocol.routing_table.peer_id_to_uid, *self.protocol.lost}
        there = {one.peer_id: one.addrs for one in await self.p2p.list_peers() if one.addrs}
        self._addresses = {peer: maddrs for peer, maddrs in (self._addresses | there).items() if peer in wanted}

    async def _call_find_with_blacklist(self, peer_id: PeerID, keys: Collection[DHTID]) -> Any:
        asked = _ASKED.get()
        if asked is not None:
            asked |= {(peer_id, key) for key in keys}
        return await super()._call_find_with_blacklist(peer_id, keys)

    async def _store_near(
        self, nearest: Mapping[DHTID, PeerID], key: DHTID, name: Any, value: bytes, end: float
    ) -> bool:
        """Store at the nearest that answer, and at the initial peers."""
        anchors = [peer for peer in self._anchors if peer not in nearest.values()]
        beside = asyncio.gather(*(self._store_at(peer, key, name, value, end) for peer in anchors))
        answers: list[bool] = []
        candidates = list(nearest.values())
        while candidates and len(answers) < REPLICAS:
            count = REPLICAS - len(answers)
            some, candidates = candidates[:count], candidates[count:]
            told = await asyncio.gather(*(self._store_at(peer, key, name, value, end) for peer in some))
            answers += [one for one in told if one is not None]
        return any([*answers, *await beside])

    async def _store_at(self, peer: PeerID, key: DHTID, name: Any, value: bytes, end: float) -> bool | None:
        """Whether a peer took it; None: it does not answer."""
        if peer != self.peer_id:
            if peer in self.blacklist:
                return None
            told = await self.protocol.call_store(peer, [key], [value], [end], subkeys=[name])
            if not told:
                self.blacklist.register_failure(peer)
                return None
            return bool(told[0])
        subkey = self.protocol.serializer.dumps(name)
        if not self.protocol._validate_record(key.to_bytes(), subkey, value, end):
            return False
        return bool(self.protocol.storage.store(key, value, end, subkey=name))

    def _joined(self, found: Any, more: Any) -> Any:
        """Records of a search and of one answer more, the later one of each."""
        if more is None:
            return found
        records = dict(found.value) if found is not None and isinstance(found.value, dict) else {}
        for subkey, (value, ends) in more.value.items():
            if subkey not in records or records[subkey].expiration_time < ends:
                records[subkey] = ValueWithExpiration(self.protocol.serializer.loads(value), ends)
        return ValueWithExpiration(records, max((one.expiration_time for one in records.values()), default=0.0))


def _as_long_as_its_records(found: Any) -> Any:
    """What was found, until the last of its records ends; a peer may say anything else."""
    if found is None or not isinstance(found.value, DictionaryDHTValue) or not found.value:
        return None
    return ValueWithExpiration(found.value, found.value.latest_expiration_time)


def _where_they_stand(key: DHTID, nearest: Mapping[DHTID, PeerID], count: int) -> dict[DHTID, PeerID]:
    """The nearest of the peers that somebody names, by their own ids."""
    stand = {node_id: peer for node_id, peer in nearest.items() if node_id == id_of(peer)}
    return {node_id: stand[node_id] for node_id in sorted(stand, key=key.xor_distance)[:count]}
