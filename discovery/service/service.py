"""Answers about nodes: what they have signed, as the mirror has it, and what the store adds to that."""

from __future__ import annotations

import asyncio
import math
import random
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import structlog

from discovery.location import parse_location
from discovery.placement import WANTED_REPLICAS, Advice, Move, Promises, advise
from discovery.probe.history import KEEP_HOURS, Hour
from discovery.protocol.announcement import SignedAnnouncement, read_announcement
from discovery.protocol.errors import AnnouncementInvalid, InvalidArgument
from discovery.protocol.ids import Wallet, check_peer_id, check_wallet
from discovery.protocol.oncall import SignedRegistration, read_registration
from discovery.protocol.registration import HEARTBEAT, REGISTRATION, consent_text
from discovery.service.cursor import Cursor
from discovery.service.errors import MirrorFull
from discovery.service.follower import Follower
from discovery.service.mirror import Entry, Mirror, Source, Variant, View
from discovery.service.probes import Probes
from discovery.service.schemas import Document, Heartbeat, Registration
from discovery.service.store import KEEP_SECONDS, NodeRow, Store
from discovery.web.errors import (
    AnnouncedForAnother,
    BadSignature,
    DatabaseUnavailable,
    ModelUnknown,
    NodeUnknown,
    ProofStale,
    TooManyNodes,
)
from discovery.web.registration import check_proof
from discovery.web.wallets import signer_of

NEAR_KM = 1000.0
"""What is near, where nobody says it."""
MAX_NODES_PER_WALLET = 1000
HINTS, HINTS_OF = 8, 64
"""Nodes that are named to newcomers beside the initial peers, of so many."""
WRITE_SECONDS = 30.0
ADVICE_SECONDS = 5.0
_SLACK_SECONDS = 60.0
_CIRCUIT = "/p2p-circuit"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Sighting:
    """A node that serves a model now. ``row`` is its registration, ``apart`` how far it is from the point that was
    asked about, in kilometres."""

    entry: Entry
    row: NodeRow | None
    apart: float | None = None


@dataclass(frozen=True)
class Page:
    """Some of the nodes that were looked for, how many there are in all, and where the next page begins."""

    total: int
    sightings: Sequence[Sighting]
    next_cursor: str | None


@dataclass(frozen=True)
class Known:
    """All that is known of a node; one of ``entries`` and ``row`` is there. ``hours``: what probers saw, of a week."""

    peer_id: str
    entries: list[Entry]
    row: NodeRow | None
    is_unwell: bool
    hours: list[Hour]


class DiscoveryService:
    """The one that answers for nodes.

    Args:
        follower: what reads the DHT and carries to it; None where there is none to follow.
        probes: what probers report.
        audience: the URI that proofs are made for.
    """

    def __init__(
        self,
        mirror: Mirror,
        store: Store,
        follower: Follower | None,
        probes: Probes,
        audience: str,
        initial_peers: tuple[str, ...] = (),
    ) -> None:
        self.mirror, self._store, self._follower, self.audience = mirror, store, follower, audience
        self.probes = probes
        self._initial_peers = initial_peers
        self._rows: dict[str, NodeRow] = {}
        """Registered nodes."""
        self._ill: set[str] = set()
        """Those of them that have said lately that they are ill."""
        self._rows_read_at = 0.0
        self._written_at: float | None = None
        self._advice: dict[str, tuple[float, Advice]] = {}
        self._promises: dict[str, Promises] = {}
        self._publishing: set[asyncio.Task[bool]] = set()

    # ---- what nodes have announced

    def active(self, model: str, location: str | None, max_km: float | None, limit: int, cursor: str | None) -> Page:
        """The nodes that serve a model and take requests, those near a place alone where one is given.

        Raises:
            ModelUnknown: nobody announces it.
            InvalidArgument: the place or the cursor is none, or a distance without a point to measure it from.
        """
        view, where = self._view(model), None if location is None else parse_location(location)
        if max_km is not None and not isinstance(where, tuple):
            raise InvalidArgument(
                "max_distance_km needs a latitude and a longitude in location, such as 52.5,13.4",
                param="max_distance_km",
            )
        if isinstance(where, tuple):
            found = view.near(where, NEAR_KM if max_km is None else max_km)
        elif where is None:
            found = view.ready
        else:
            found = view.within(where)
        if ill := self._ill_at(time.time()):
            found = [one for one in found if view[one[1]].peer_id not in ill]
        first = 0 if cursor is None else bisect_right(found, Cursor.parse(cursor))
        page = found[first : first + limit]
        is_point = isinstance(where, tuple)
        there = [(view[name], apart if is_point else None) for apart, name in page]
        sightings = [Sighting(one, self._rows.get(one.peer_id), apart) for one, apart in there]
        more = str(Cursor(*page[-1])) if first + limit < len(found) else None
        return Page(len(found), sightings, more)

    async def node(self, node_id: str) -> Known:
        """What is known of a node. While the database does not answer its history is missing.

        Raises:
            InvalidIdentity: this cannot be the id of a node.
            NodeUnknown: nobody has heard of it.
        """
        peer_id, now = check_peer_id(node_id), time.time()
        entries = self.mirror.node(peer_id, now)
        try:
            row = await self._store.find(peer_id)
        except DatabaseUnavailable:
            if not entries:
                raise
            row = None
        if not entries and row is None:
            raise NodeUnknown(f"nobody has heard of {peer_id}")
        is_unwell = row is not None and row.says_it_is_ill(now, self.mirror.expiry_seconds)
        return Known(peer_id, entries, row, is_unwell, await self.probes.known(peer_id, KEEP_HOURS))

    def models(self, limit: int, cursor: str | None) -> tuple[int, list[Variant], str | None]:
        """All models that are announced: how many, some of them, and where the next begin.

        Raises:
            InvalidArgument: the cursor is none.
        """
        now = time.time()
        after = "" if cursor is None else Cursor.parse(cursor).name
        digests = self.mirror.digests(now)
        first = bisect_right(digests, after)
        page = digests[first : first + limit]
        more = str(Cursor(0.0, page[-1])) if first + limit < len(digests) else None
        return len(digests), [self.mirror.view(digest, now).variant(digest) for digest in page], more

    def variants(self, model: str, limit: int, cursor: str | None) -> tuple[int, list[Variant], str | None]:
        """How a model is covered, for each set of weights under its name, those of most nodes first: how many there
        are, some of them, and where the next begin.

        Raises:
            ModelUnknown: nobody announces it.
            InvalidArgument: the cursor is none.
        """
        view = self._view(model)
        first = 0 if cursor is None else bisect_right(view.digests, Cursor.parse(cursor))
        page = view.digests[first : first + limit]
        more = str(Cursor(*page[-1])) if first + limit < len(view.digests) else None
        return len(view.digests), [view.variant(digest) for _, digest in page], more

    def bootstrap(self) -> list[str]:
        """Where to join the swarm: the initial peers, and some nodes that are there now."""
        oldest = islice(self.mirror.active(time.time()), HINTS_OF)  # who was there for long will be for longer
        there = [address for one in oldest if (address := _address(one)) is not None]
        return [*self._initial_peers, *random.sample(there, min(HINTS, len(there)))]

    # ---- what nodes say of themselves

    async def register(self, said: Registration, body: bytes, signature: str | None) -> tuple[bool, bool | None]:
        """A node and the wallet it earns for, both signed: ``body`` is what was sent, ``signature`` the node's. Whether
        the node is listed now, and whether the swarm has heard where it is woken, if it has said so.

        Raises:
            InvalidIdentity, InvalidWallet, InvalidArgument: what is sent means nothing.
            BadSignature: one of the two has not signed this, for us.
            ProofStale: too old, or not newer than what counts already.
            AnnouncementInvalid: what it announces is not its own, or not live, or for another wallet or model.
            AnnouncedForAnother: in the swarm the node says that it earns for another wallet.
            TooManyNodes: the wallet has as many as it may have.
            MirrorFull, DatabaseUnavailable: not now.
        """
        node_id, wallet = check_peer_id(said.node_id), check_wallet(said.wallet_address)
        if said.location is not None:
            parse_location(said.location)
        check_proof(node_id, REGISTRATION, self.audience, said.issued_at, body, signature)
        if signer_of(consent_text(self.audience, node_id, wallet, said.issued_at), said.signature) != wallet:
            raise BadSignature(f"the consent was not signed by {wallet}")
        signed = self._read(said.announcement, node_id, wallet)
        if signed is not None and said.model_id not in (signed.announcement.model_id, signed.announcement.model_digest):
            raise AnnouncementInvalid(f"the announcement is of the model {signed.announcement.model_id}")
        on_call = self._read_on_call(said.on_call, node_id, wallet)
        for entry in self.mirror.node(node_id, time.time()):
            if signed is None and entry.announcement.wallet != wallet:
                other = entry.announcement.wallet
                raise AnnouncedForAnother(f"{node_id} says that it earns for {other}: start it with --wallet {wallet}")
        if await self._store.count_registered(wallet, node_id) >= MAX_NODES_PER_WALLET:
            raise TooManyNodes(f"{wallet} has {MAX_NODES_PER_WALLET} registered nodes already")
        self._take(signed)
        if not await self._store.register(said, wallet, time.time()):
            raise ProofStale("a registration that is as new counts already: sign one with the time of now")
        row = await self._store.find(node_id)
        assert row is not None
        self._know(row)
        return bool(self.mirror.node(node_id, time.time())), await self._carry(on_call)

    async def heartbeat(
        self, said: Heartbeat, body: bytes, signature: str | None
    ) -> tuple[bool, bool | None, Move | None]:
        """A registered node is there. Whether it is listed, whether the swarm has heard where it is woken, if it has
        said so, and where it would do more good.

        Raises:
            InvalidIdentity: what is sent means nothing.
            BadSignature: the node has not signed this, for us.
            ProofStale: too old, or not newer than the last one.
            AnnouncementInvalid: what it announces is not its own, or not live, or for another wallet.
            NodeUnknown: it has to be registered first.
            MirrorFull, DatabaseUnavailable: not now.
        """
        node_id = check_peer_id(said.node_id)
        check_proof(node_id, HEARTBEAT, self.audience, said.issued_at, body, signature)
        row = self._rows.get(node_id) or await self._store.find(node_id)
        if row is None or not row.is_registered:
            raise NodeUnknown(f"{node_id} is not registered here: POST /nodes/register")
        signed = self._read(said.announcement, node_id, Wallet(row.wallet))
        on_call = self._read_on_call(said.on_call, node_id, Wallet(row.wallet))
        claims, heard_at = said.claims(), said.issued_at.timestamp()
        self._take(signed)
        if not await self._store.heard(node_id, claims, heard_at, time.time()):
            raise ProofStale("a heartbeat that is as new was here already: sign one with the time of now")
        self._know(replace(row, claims=claims, heard_at=heard_at, changed_at=int(time.time())))
        entries = self.mirror.node(node_id, time.time())
        moves = [await self._move(entry) for entry in entries]
        return bool(entries), await self._carry(on_call), next((move for move in moves if move is not None), None)

    def _read(self, document: Document | None, node_id: str, wallet: Wallet) -> SignedAnnouncement | None:
        """An announcement that came with a proof: the node's own, and for the wallet that it is registered for."""
        if document is None:
            return None
        signed = read_announcement(document.model_dump_json().encode())
        if signed.peer_id != node_id:
            raise AnnouncementInvalid(f"the announcement is not that of {node_id}")
        if signed.announcement.wallet != wallet:
            raise AnnouncementInvalid(f"the announcement is not for {wallet}")
        return signed

    def _read_on_call(self, document: Document | None, node_id: str, wallet: Wallet) -> SignedRegistration | None:
        """Where the node is woken that sent it: its own word, for its wallet, this swarm and now."""
        if document is None:
            return None
        signed = read_registration(document.model_dump_json().encode())
        about = signed.registration
        if about.peer_id != node_id:
            raise AnnouncementInvalid(f"it is not {node_id} that says where it is woken")
        if about.wallet != wallet:
            raise AnnouncementInvalid(f"what says where the node is woken is not for {wallet}")
        if about.swarm != self.mirror.swarm:
            raise AnnouncementInvalid("what says where the node is woken is meant for another swarm")
        if not about.is_live():
            raise AnnouncementInvalid("what says where the node is woken has expired, or is from the future")
        return signed

    async def _carry(self, on_call: SignedRegistration | None) -> bool | None:
        if on_call is None:
            return None
        return self._follower is not None and await self._follower.register(on_call)

    def _take(self, signed: SignedAnnouncement | None) -> None:
        if signed is None:
            return
        if self.mirror.take(signed, time.time(), Source.SENT) and self._follower is not None:
            task = asyncio.create_task(self._follower.publish(signed))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)

    async def _move(self, entry: Entry) -> Move | None:
        about, now = entry.announcement, time.time()
        made_at, advice = self._advice.get(about.model_digest, (-math.inf, None))
        if advice is None or now - made_at > ADVICE_SECONDS:
            view = self.mirror.view(about.model_digest, now)
            if not view.entries:
                return None  # it was the last of them, and has expired meanwhile
            block_count = view.variant(about.model_digest).block_count
            promises = self._promises.setdefault(about.model_digest, Promises())
            nodes = promises.believed([one.announcement for one in view.entries], now)
            advice = await asyncio.to_thread(advise, nodes, block_count, WANTED_REPLICAS)
            self._advice[about.model_digest] = now, advice
        return advice.move_of(about.peer_id)

    # ---- on a clock

    async def load(self) -> None:
        """What was kept, when the process begins. What has expired meanwhile stays out."""
        now = time.time()
        for source, document in await self._store.kept():
            try:
                self.mirror.take(read_announcement(document), now, Source(source))
            except (AnnouncementInvalid, ProofStale, MirrorFull, ValueError):
                continue
        await self._read_rows(now)
        self._written_at = now

    async def run(self) -> None:
        """Write down who is there, and read what others beside us have written, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            try:
                await self.write()
            except DatabaseUnavailable as error:
                log.warning("history_not_written", code=error.code)

    async def write(self) -> None:
        """Write down who was there since the last time, and what the DHT would not tell again."""
        now = time.time()
        self.mirror.sweep(now)
        self._promises = {name: self._promises[name] for name in self._promises if name in self._advice}
        self._advice = {name: made for name, made in self._advice.items() if now - made[0] <= ADVICE_SECONDS}
        wallets = {one.peer_id: one.announcement.wallet for one in self.mirror.active(now)}
        left_out = await self._store.saw(wallets, now if self._written_at is None else self._written_at, now)
        self._written_at = now
        if left_out:
            log.warning("history_is_full", left_out=left_out)
        await self._store.keep(self.mirror.worth_keeping(), now - self.mirror.expiry_seconds)
        await self._store.forget(now)
        await self._read_rows(now)

    async def close(self) -> None:
        """Write what is not written yet."""
        if self._publishing:
            await asyncio.wait(self._publishing, timeout=1.0)
        try:
            await self.write()
        except DatabaseUnavailable as error:
            log.warning("history_not_written", code=error.code)

    async def _read_rows(self, now: float) -> None:
        for row in await self._store.registered_since(self._rows_read_at - _SLACK_SECONDS):
            self._know(row)
        self._rows_read_at = now
        old = now - KEEP_SECONDS
        for peer_id in [one.peer_id for one in self._rows.values() if max(one.last_seen, one.changed_at) < old]:
            del self._rows[peer_id]
        self._ill = self._ill_at(now)

    # ---- inside

    def _know(self, row: NodeRow) -> None:
        self._rows[row.peer_id] = row
        if row.says_it_is_ill(time.time(), self.mirror.expiry_seconds):
            self._ill.add(row.peer_id)
        else:
            self._ill.discard(row.peer_id)

    def _ill_at(self, now: float) -> set[str]:
        expiry = self.mirror.expiry_seconds
        return {one for one in self._ill if one in self._rows and self._rows[one].says_it_is_ill(now, expiry)}

    def _view(self, model: str) -> View:
        view = self.mirror.view(model, time.time())
        if not view:
            raise ModelUnknown(f"nobody announces the model {model[:80]!r}", param="model")
        return view

    @property
    def followed_seconds(self) -> float | None:
        """How long ago the DHT was read to the end; None: not yet, or there is none."""
        at = None if self._follower is None else self._follower.followed_at
        return None if at is None else time.time() - at

    @property
    def has_follower(self) -> bool:
        """Whether there is a DHT to follow."""
        return self._follower is not None

    async def check_store(self) -> None:
        """Whether the database answers.

        Raises:
            DatabaseUnavailable: it does not.
        """
        await self._store.check()

    def taken(self) -> Mapping[str, int]:
        """How many announcements of the DHT were taken, and how many refused, by the reason."""
        if self._follower is None:
            return {}
        return {"taken": self._follower.taken, **self._follower.refused}


def _address(entry: Entry) -> str | None:
    """Where a node is reached directly."""
    about = entry.announcement
    direct = (maddr for maddr in about.maddrs if _CIRCUIT not in maddr)
    return next((f"{maddr}/p2p/{about.peer_id}" for maddr in direct), None)
