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
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from itertools import accumulate, chain, repeat
from typing import Any, Self

import structlog
from hivemind.dht.node import DHTNode
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.dht.traverse import traverse_dht
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
BEAM_SIZE, ASKED_AT_ONCE = 10, 4
"""A reading asks so many of those next to a key, and so many at a time."""
ANSWER_SECONDS = 3.0
BANNED_SECONDS = 30.0
"""For so long a peer that did not answer is not asked: no longer, for it may be us who were cut off."""
CHECKED_AT_ONCE = 16
MOST_KEY_BYTES, MOST_ANSWER_BYTES = 900_000, 250_000
"""Of the records under one key, which have to fit into a message (4 MiB) and to come through in time, and of those of
several keys in one answer."""
MOST_RECORDS = 2000
"""Under one key: a signed announcement takes 700 bytes at the least."""
MOST_ANCHORS = 8
FIRST_SECONDS, REJOIN_SECONDS = (1.0, 4.0, 10.0), 30.0
"""When others are looked for after joining, and how often from then on: those that joined at the same moment may have
missed each other."""
MOST_LOST, LOST_AT_ONCE, LOST_SECONDS = 64, 8, 3600.0
"""Peers that do not answer any more: how many are looked for, in each round, and for how long."""

_Answer = dict[DHTID, tuple[Any, dict[DHTID, PeerID]]]
"""By key: the records of a peer, and whom it knows next to the key."""
_Ask = Callable[[PeerID, Collection[DHTID]], Awaitable[_Answer]]
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

    _notes: set[asyncio.Task[None]]
    lost: OrderedDict[PeerID, float]
    """Peers that did not answer, and since when, by a steady clock."""

    @classmethod
    async def create(cls, *arguments: Any, **options: Any) -> Self:
        """hivemind's."""
        self: Self = await super().create(*arguments, **options)
        self.cache, self.lost, self._notes = _NoCache(), OrderedDict(), set()
        return self

    @classmethod
    def _get_handle_name(cls, namespace: str | None, method_name: str) -> str:
        return str(DHTProtocol._get_handle_name(namespace, method_name))

    async def call_find(self, peer: PeerID, keys: Collection[DHTID]) -> _Answer | None:
        """What a peer has under some keys, and whom it knows next to them; None: it does not answer, or what is none.

        hivemind's, of which is left what is true: good records until they end, and peers where they stand. What did not
        fit into an answer is asked for again.
        """
        found: _Answer = {}
        rest = list(keys)
        try:
            while rest:
                request = dht_pb2.FindRequest(keys=[key.to_bytes() for key in rest], peer=self.node_info)
                async with self.rpc_semaphore:
                    answer = await self.get_stub(peer).rpc_find(request, timeout=self.wait_timeout)
                if len(answer.results) != len(rest):
                    raise ValueError("it answers something else")
                results = dict(zip(rest, answer.results, strict=True))
                rest = [key for key, one in results.items() if _did_not_fit(one)]
                if len(rest) == len(results):
                    raise ValueError("it answers nothing")
                for key in results.keys() - set(rest):
                    near = _where_they_stand(key, results[key], self.bucket_size)
                    found[key] = await self._believed(key, results[key]), near
        except Exception:  # whatever a stranger sends, and whatever the daemon has met
            self._note(self.routing_table.get(peer_id=peer), peer, responded=False)
            return None
        if answer.peer.node_id:
            self._note(DHTID.from_bytes(answer.peer.node_id), peer, responded=True)
        return found

    async def call_store(
        self,
        peer: PeerID,
        keys: Sequence[DHTID],
        values: Sequence[Any],
        expiration_time: float | Sequence[float],
        subkeys: Any = None,
        in_cache: Any = None,
    ) -> list[bool] | None:
        """hivemind's. What it hands over to a newcomer, whole dictionaries, is as much as fits into a message; the rest
        is brought by those who renew it."""
        if subkeys is None and not isinstance(expiration_time, float):
            sizes = accumulate(sum(len(one) for _, (one, _) in value.items()) for value in values)
            count = sum(size <= MOST_KEY_BYTES for size in sizes)
            if not count:
                return None
            keys, values, expiration_time = keys[:count], values[:count], expiration_time[:count]
        told: list[bool] | None = await super().call_store(peer, keys, values, expiration_time, subkeys, in_cache)
        return told

    async def rpc_find(self, request: dht_pb2.FindRequest, context: P2PContext) -> dht_pb2.FindResponse:
        """hivemind's, of which is told what comes through a thin line in time: the first key at least."""
        answer = await super().rpc_find(request, context)
        told = 0
        for number, result in enumerate(answer.results):
            if number and told + len(result.value) > MOST_ANSWER_BYTES:
                result.CopyFrom(_DID_NOT_FIT)
            told += len(result.value)
        return answer

    async def rpc_store(self, request: dht_pb2.StoreRequest, context: P2PContext) -> dht_pb2.StoreResponse:
        """hivemind's, within bounds."""
        answer = await super().rpc_store(request, context)
        for key in {DHTID.from_bytes(key) for key in request.keys}:
            self._keep_within_bounds(key)
        return answer

    async def update_routing_table(self, node_id: DHTID | None, peer_id: PeerID, responded: bool = True) -> None:
        """hivemind's, for peers that stand where they belong."""
        if node_id is not None and node_id != id_of(peer_id):
            return
        if responded:
            self.lost.pop(peer_id, None)
        elif id_of(peer_id) in self.routing_table:
            self.lost[peer_id] = time.monotonic()
            while len(self.lost) > MOST_LOST:
                self.lost.popitem(last=False)
        await super().update_routing_table(node_id, peer_id, responded=responded)

    async def _believed(self, key: DHTID, result: dht_pb2.FindResult) -> Any:
        """The good records that somebody tells, until the last of them ends; None: there are none."""
        if result.type != dht_pb2.FOUND_DICTIONARY:
            return None
        told, good = self.serializer.loads(result.value), DictionaryDHTValue()
        if len(told.data) > MOST_RECORDS:
            raise ValueError("it tells more than fits under a key")
        for count, (subkey, (value, ends)) in enumerate(told.data.items(), 1):
            if count % CHECKED_AT_ONCE == 0:
                await asyncio.sleep(0)  # a signature takes a tenth of a millisecond, and there may be thousands
            if ends > time.time() and self._is_good(key, subkey, value, ends):
                good.store(subkey, value, ends)
        return ValueWithExpiration(good, good.latest_expiration_time) if good else None

    def _validate_dictionary(self, key_bytes: bytes, dictionary: DictionaryDHTValue) -> bool:
        """Leave the good records; whether there are any. hivemind asks this when it is to store a whole dictionary."""
        key = DHTID.from_bytes(key_bytes)
        for subkey, (value, ends) in list(dictionary.data.items()):
            if not self._is_good(key, subkey, value, ends):
                del dictionary[subkey]
        dictionary.expiration_heap = sorted(dictionary.key_to_heap.values())
        return bool(dictionary)

    def _is_good(self, key: DHTID, subkey: Any, value: bytes, ends: float) -> bool:
        record = DHTRecord(key.to_bytes(), self.serializer.dumps(subkey), value, ends)
        return bool(self.record_validator.validate(record))

    def _note(self, node_id: DHTID | None, peer: PeerID, responded: bool) -> None:
        task = asyncio.create_task(self.update_routing_table(node_id, peer, responded=responded))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

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
    _first_search: asyncio.Task[Any] | None = None
    _addresses: dict[PeerID, Sequence[Multiaddr]]

    @classmethod
    async def join(
        cls,
        p2p: P2P,
        validator: RecordValidatorBase,
        initial_peers: Sequence[str] = (),
        is_client: bool = False,
        may_be_alone: bool = False,
    ) -> Self:
        """Join through initial peers (multiaddrs that name their peer ids); without any this is the first peer. One
        that ``may_be_alone`` is so if none of them answers, and looks for them from then on.

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
        answered = await asyncio.gather(*(node._greet(peer, validate=True) for peer in node._anchors))
        if node._anchors and not any(answered) and not may_be_alone:
            raise RuntimeError("none of the initial peers answers")
        node._keeping = asyncio.create_task(node._keep_joined())
        if node._anchors:
            node._first_search = asyncio.create_task(node.find_nearest_nodes([node.node_id]))
            await asyncio.wait([node._first_search], timeout=ANSWER_SECONDS)  # what takes longer goes on
        return node

    @property
    def has_joined(self) -> bool:
        """Whether one of the initial peers is known to answer, or there are none but ourselves."""
        others = self._anchors.keys() - {self.peer_id}
        return not others or any(peer in self.protocol.routing_table for peer in others)

    async def shutdown(self) -> None:
        """Answer nobody any more."""
        tasks = [self._keeping] if self._first_search is None else [self._keeping, self._first_search]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
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
        beside = {key: DHTID(key ^ 1) for key in ids}  # where the same peers are next, and have nothing to tell

        async def ask(peer: PeerID, some: Collection[DHTID]) -> _Answer:
            return await self._call_find_with_blacklist(peer, some) or {}

        nearest = await self._search(list(set(beside.values())), BUCKET_SIZE, ask)
        tasks = [
            self._store_near(nearest[beside[key_id]], key_id, name, self.protocol.serializer.dumps(value), end)
            for key_id, name, value, end in zip(ids, names, values, ends, strict=True)
        ]
        stored = await asyncio.gather(*tasks)
        places = zip(keys, names, strict=True)
        return {key if name is None else (key, name): taken for (key, name), taken in zip(places, stored, strict=True)}

    async def get_many(self, keys: Collection[Any], *_as_hivemind: Any, **_more: Any) -> dict[Any, Any]:
        """All that stands under some keys, as hivemind's ``get_many`` answers it: what we keep ourselves, what those
        have who are next to the keys, and what the initial peers have."""
        ids = {DHTID.generate(source=key): key for key in keys}
        found = _Found()
        for key in ids:
            found.add(key, self.protocol.storage.get(key))
        asked: set[tuple[PeerID, DHTID]] = set()

        async def ask(peer: PeerID, some: Collection[DHTID]) -> _Answer:
            asked.update((peer, key) for key in some)
            answer: _Answer = await self._call_find_with_blacklist(peer, some) or {}
            for key, (records, _) in answer.items():
                found.add(key, records)
            return answer

        await self._search(list(ids), BEAM_SIZE, ask)
        rest = {peer: [key for key in ids if (peer, key) not in asked] for peer in self._anchors}
        await asyncio.gather(*(ask(peer, some) for peer, some in rest.items() if some and peer != self.peer_id))
        return {name: found.under(key) for key, name in ids.items()}

    async def _search(self, keys: Sequence[DHTID], beam_size: int, ask: _Ask) -> dict[DHTID, dict[DHTID, PeerID]]:
        """Ask those who are next to some keys, and whom they know, until nobody nearer is left; the nearest, without
        ourselves, in their order."""
        peers: dict[DHTID, PeerID] = {}
        for key in keys:
            near = self.protocol.routing_table.get_nearest_neighbors(key, beam_size, exclude=self.node_id)
            peers |= self._filter_blacklisted(dict(near))

        async def neighbours(node_id: DHTID, some: Collection[DHTID]) -> dict[DHTID, tuple[tuple[DHTID, ...], bool]]:
            answer = await ask(peers[node_id], some)
            for _, near in answer.values():
                peers.update(near)
            return {key: (tuple(answer[key][1]) if key in answer else (), False) for key in some}

        nearest, _ = await traverse_dht(
            queries=keys,
            initial_nodes=list(peers),
            beam_size=beam_size,
            num_workers=ASKED_AT_ONCE,
            queries_per_call=max(1, len(keys)),
            get_neighbors=neighbours,
            await_all_tasks=False,
            visited_nodes={key: {self.node_id} for key in keys},
        )
        return {key: {node_id: peers[node_id] for node_id in nodes} for key, nodes in nearest.items()}

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

    async def _store_near(
        self, nearest: Mapping[DHTID, PeerID], key: DHTID, name: Any, value: bytes, end: float
    ) -> bool:
        """Store at the nearest that answer, at the initial peers, and with ourselves, who may be an initial peer of
        others."""
        holders = {*self._anchors} - {self.peer_id} if self.protocol.client_mode else {*self._anchors, self.peer_id}
        beside = asyncio.gather(*(self._store_at(peer, key, name, value, end) for peer in holders))
        answers: list[bool] = []
        ordered = (nearest[node_id] for node_id in sorted(nearest, key=key.xor_distance))
        candidates = [peer for peer in ordered if peer not in holders]
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


class _Found:
    """Records by key and subkey, of each the one that ends last."""

    def __init__(self) -> None:
        self._records: dict[DHTID, dict[Any, ValueWithExpiration]] = {}

    def add(self, key: DHTID, more: Any) -> None:
        """What one peer has."""
        records = self._records.setdefault(key, {})
        for subkey, one in [] if more is None else more.value.items():
            if subkey not in records or records[subkey].expiration_time < one.expiration_time:
                records[subkey] = one

    def under(self, key: DHTID) -> ValueWithExpiration | None:
        """All under a key, their values unpacked."""
        loads = DHTProtocol.serializer.loads
        told = {name: ValueWithExpiration(loads(value), ends) for name, (value, ends) in self._records[key].items()}
        last = max((one.expiration_time for one in told.values()), default=0.0)
        return ValueWithExpiration(told, last) if told else None


_DID_NOT_FIT = dht_pb2.FindResult(type=dht_pb2.FOUND_REGULAR)
"""In the place of what is under a key. Nothing else of this kind is ever kept here."""


def _did_not_fit(result: dht_pb2.FindResult) -> bool:
    return result.type == dht_pb2.FOUND_REGULAR and not result.value


def _where_they_stand(key: DHTID, result: dht_pb2.FindResult, count: int) -> dict[DHTID, PeerID]:
    """The nearest of the peers that somebody names, each at its own id."""
    named = zip(result.nearest_node_ids, map(PeerID, result.nearest_peer_ids), strict=False)
    stand = {id_of(peer): peer for node_id, peer in named if node_id == id_of(peer).to_bytes()}
    return {node_id: stand[node_id] for node_id in sorted(stand, key=key.xor_distance)[:count]}
