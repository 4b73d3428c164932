"""One peer of the swarm: the p2p daemon, the DHT on it, the board and the transport. It owns them all."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Literal

import structlog
from hivemind.p2p import P2P
from hivemind.p2p.p2p_daemon_bindings.control import P2PDaemonError
from hivemind.utils.multiaddr import Multiaddr

from discovery.children import die_with_parent
from discovery.dht.board import Board, all_are_believed
from discovery.dht.dialback import DialBack
from discovery.dht.gate import Gate, GatedP2P, GatedTransport, tell_charter
from discovery.dht.identity import Identity, discard_identity, ephemeral_identity
from discovery.dht.keys import DEFAULT_PREFIX
from discovery.dht.node import SwarmNode
from discovery.dht.p2p import CANNOT_OPEN, OPEN_TIMEOUT_SECONDS, P2PTransport, to_multiaddr
from discovery.dht.reach import NOT_ASKED, Reach, ReachMeter, of_relays
from discovery.dht.relay import RelayLimits, RelaySlots, reserve
from discovery.dht.transport import Transport
from discovery.dht.validator import AnnouncementValidator
from discovery.protocol.errors import FarError, InvalidArgument, InvalidIdentity, NotInvited, PeerUnavailable
from discovery.protocol.ids import PeerId, check_peer_id
from discovery.protocol.membership import Membership, SignedCharter
from discovery.protocol.messages import PeerAddress

log = structlog.get_logger(__name__)

LOCAL_MADDR = "/ip4/127.0.0.1/tcp/0"
LEAVE_SECONDS = 2.0
CIRCUIT = "/p2p-circuit"
Way = Literal["direct", "relay"]
_NO_RELAY = ("-relayService=0",)
"""A daemon that finds itself reachable would carry 4 GiB for each of 128 peers. What stays is the relay that every
daemon has: 128 KiB and two minutes for each circuit."""
_RELAY_STARTS = 8
_LOOK_SECONDS = 0.2
_spawn = asyncio.subprocess.create_subprocess_exec


@dataclass(frozen=True)
class PeerConfig:
    """How a peer stands in the swarm.

    A client (``is_client``) stores nothing for others and needs no open port. ``map_ports`` asks the router for a
    port (UPnP, NAT-PMP); it is off unless the owner of the machine asks for it. A relay (``is_relay``) carries
    connections to peers that nobody can reach otherwise, within its ``relay_limits``. A bootstrap peer
    (``dials_back``) tells who asks how he is seen from outside. A peer that nobody can reach (``behind_nat``) takes
    slots at the initial peers, is reached through them alone, and stores nothing for others; a connection that comes
    through a relay it makes direct where routers let it. ``punches_holes`` is the other end of that, and needs to
    listen where packets come to. With a ``membership`` it is one of a private swarm, whose name is the prefix, and
    meets only others of it. One that ``starts_alone`` does so whether an initial peer answers or not, and goes on
    looking for them: bootstrap peers that name each other cannot all be the second.
    """

    initial_peers: tuple[str, ...] = ()
    host_maddrs: tuple[str, ...] = (LOCAL_MADDR,)
    announce_maddrs: tuple[str, ...] = ()
    prefix: str = DEFAULT_PREFIX
    is_client: bool = False
    map_ports: bool = False
    is_relay: bool = False
    relay_limits: RelayLimits = field(default_factory=RelayLimits)
    dials_back: bool = False
    behind_nat: bool = False
    punches_holes: bool = False
    membership: Membership | None = None
    starts_alone: bool = False

    def __post_init__(self) -> None:
        if self.membership is not None and self.prefix != self.membership.charter.swarm:
            raise InvalidArgument(f"the prefix of this private swarm is {self.membership.charter.swarm}")

    @property
    def punches(self) -> bool:
        """Whether it turns connections through a relay into direct ones."""
        return self.behind_nat or self.punches_holes


class SwarmPeer:
    """A started peer. Use :meth:`start`, and :meth:`close` at the end."""

    def __init__(
        self,
        p2p: P2P,
        transport: P2PTransport,
        dht: SwarmNode,
        prefix: str,
        lock: IO[bytes] | None,
        slots: RelaySlots | None,
        gate: Gate | None,
        asked: Sequence[PeerId] = (),
    ) -> None:
        self._p2p, self._dht, self._lock, self._slots, self.gate = p2p, dht, lock, slots, gate
        self._meter = ReachMeter(p2p, asked, self._tcp_port) if asked else None
        self.transport: Transport = transport if gate is None else GatedTransport(transport, gate)
        self.board = Board(dht, prefix, all_are_believed if gate is None else gate.check_announcement)

    @property
    def peer_id(self) -> PeerId:
        """Our id, as others have authenticated it."""
        return self.transport.peer_id

    @classmethod
    async def start(cls, identity: Identity, config: PeerConfig) -> SwarmPeer:
        """Start the daemon, join the DHT.

        Raises:
            InvalidArgument: a multiaddr that is none, or a port that is in use.
            InvalidIdentity: another process runs with this identity.
            PeerUnavailable: no initial peer answered, or, behind NAT, none of them relays.
            NotInvited: the invitation to the private swarm does not count, or is another peer's.
        """
        for maddr in config.initial_peers:
            check_peer_maddr(maddr)
        for maddr in config.announce_maddrs:
            check_public_maddr(maddr)
        for maddr in config.host_maddrs:
            _check_port_is_free(parse_maddr(maddr))
        lock = _lock_identity(identity)
        try:
            p2p = await _start_daemon(identity, config)
            slots = RelaySlots(p2p, config.initial_peers) if config.behind_nat else None
            try:
                if slots is not None:
                    await slots.start()
                if config.is_relay or config.dials_back:
                    await DialBack.serve(p2p)
                transport = P2PTransport(p2p)
                gate = None if config.membership is None else await _open_gate(transport, config, config.membership)
                dht = await _join_dht(p2p, config, gate)
            except BaseException:
                if slots is not None:
                    await slots.stop()
                await p2p.shutdown()
                raise
        except BaseException:
            lock.close()
            raise
        peer = cls(p2p, transport, dht, config.prefix, lock, slots, gate, _whom_to_ask(config))
        if peer._meter is not None:
            peer._meter.start()
        return peer

    @property
    def relays(self) -> tuple[str, ...] | None:
        """Peer ids of the relays that let others through to us now; None for a peer that is reached directly."""
        return None if self._slots is None else tuple(relay.rpartition("/p2p/")[2] for relay in self._slots.held)

    @property
    def reach(self) -> Reach:
        """How others get through to us, and why."""
        if self.relays is not None:
            return of_relays(self.relays)
        return NOT_ASKED if self._meter is None else self._meter.now

    async def maddrs(self) -> tuple[str, ...]:
        """Where this peer can be reached, with ``/p2p/<peer id>`` at the end."""
        if self._slots is not None:
            return tuple(f"{relay}{CIRCUIT}/p2p/{self.peer_id}" for relay in self._slots.held)
        return tuple(str(maddr) for maddr in await self._p2p.get_visible_maddrs(latest=True))

    @property
    def has_joined(self) -> bool:
        """Whether one of the initial peers is known to answer, or there are none."""
        return self._dht.has_joined

    async def joined(self) -> None:
        """Wait until it :attr:`has_joined`: one that starts alone may not have yet."""
        while not self.has_joined:  # noqa: ASYNC110  # hivemind has nothing to wait for
            await asyncio.sleep(_LOOK_SECONDS)

    async def _tcp_port(self) -> int | None:
        """The first of those that others are told of."""
        ports = (parse_maddr(maddr) for maddr in await self.maddrs())
        return next((int(maddr["tcp"]) for maddr in ports if "tcp" in maddr), None)

    async def connections(self) -> dict[str, Way]:
        """Who is connected to us now, by peer id, and how; of two ways the direct one, which new streams take."""
        found: dict[str, Way] = {}
        for info in await self._p2p.list_peers():
            is_direct = any(CIRCUIT not in str(maddr) for maddr in info.addrs)
            peer_id = info.peer_id.to_base58()
            if is_direct or peer_id not in found:
                found[peer_id] = "direct" if is_direct else "relay"
        return found

    async def close(self) -> None:
        """Leave the swarm and end the daemon."""
        if self._meter is not None:
            await self._meter.stop()
        if self._slots is not None:
            await self._slots.stop()
        await self.transport.close()
        # when the daemon is gone already, hivemind would wait for its answer for ever
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._dht.shutdown()
        await self._p2p.shutdown()
        if self._lock is not None:
            self._lock.close()


def _whom_to_ask(config: PeerConfig) -> tuple[PeerId, ...]:
    """Who dials back for a node: those through whom it joins. Others need not know how they are reached."""
    if config.is_client or config.behind_nat or config.is_relay or config.dials_back:
        return ()
    return tuple(address_of(maddr).peer_id for maddr in config.initial_peers)


def bare_maddr(maddr: str) -> str:
    """The multiaddr without ``/p2p/<peer id>``."""
    return maddr.rpartition("/p2p/")[0] or maddr


def parse_maddr(text: str) -> Multiaddr:
    """A multiaddr that somebody typed.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        return Multiaddr(text)
    except (ValueError, LookupError, TypeError):
        raise InvalidArgument(f"{text!r} is not a multiaddr; one looks like /ip4/127.0.0.1/tcp/31337") from None


def check_peer_maddr(text: str) -> None:
    """Is this the address of somebody to join a swarm through?

    Raises:
        InvalidArgument: it is no multiaddr, or names no peer id.
    """
    maddr = parse_maddr(text)
    if "p2p" not in maddr:
        raise InvalidArgument(f"the initial peer {text} names no peer id; it should end in /p2p/12D3KooW…")


def check_public_maddr(text: str) -> None:
    """Is this an address that others can reach us at?

    Raises:
        InvalidArgument: it is no multiaddr, or names port 0.
    """
    maddr = parse_maddr(text)
    if any(transport in maddr and maddr[transport] == "0" for transport in ("tcp", "udp")):
        raise InvalidArgument(f"the public address {text} names port 0; name the port that others reach")


def _check_port_is_free(maddr: Multiaddr) -> None:
    """p2pd says nothing useful when its port is taken, so ask first."""
    if "ip4" not in maddr or "tcp" not in maddr or maddr["tcp"] == "0":
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((maddr["ip4"], int(maddr["tcp"])))
        except OSError as error:
            raise InvalidArgument(f"cannot listen on {maddr}: {error.strerror}; choose another --host-maddr") from None


def _lock_identity(identity: Identity) -> IO[bytes]:
    """Two processes with one identity confuse the whole swarm; the lock ends with the process."""
    file = identity.path.open("rb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InvalidIdentity(f"another process on this machine runs with the identity {identity.path}") from None
    return file


async def _start_daemon(identity: Identity, config: PeerConfig) -> P2P:
    """A daemon; one that is to relay does so with our limits.

    Every daemon starts two relays, ours and one that cuts each circuit off after 128 KiB, and the one that is there
    last gets the work (go-libp2p-daemon 0.5: ``EnableRelayV2`` against the relay service). Nothing but asking tells
    which, so a daemon that came out wrong is started again.
    """
    for _ in range(_RELAY_STARTS):
        p2p = await _launch(identity, config)
        try:
            if not config.is_relay or await _relays_well(p2p, config):
                return p2p
        except BaseException:
            await p2p.shutdown()
            raise
        await p2p.shutdown()
    log.warning("relay_is_weak", reason="nodes behind NAT will not be served by this peer; start it again")
    return await _launch(identity, config)


async def _launch(identity: Identity, config: PeerConfig) -> P2P:
    options: dict[str, Any] = {}
    announced = [f"{peer}{CIRCUIT}" for peer in config.initial_peers] if config.behind_nat else config.announce_maddrs
    if announced:
        options["announce_maddrs"] = list(announced)
    if config.is_relay:
        options["force_reachability"] = "public"  # or the relay waits for others to confirm it
    if config.behind_nat:
        options["force_reachability"] = "private"  # or it does not begin to punch holes
    try:
        with daemon_of_our_own(config.relay_limits if config.is_relay else None):
            return await P2P.create(
                # a daemon that is told of them ends when none of them answers
                initial_peers=None if config.starts_alone else list(config.initial_peers) or None,
                host_maddrs=list(config.host_maddrs),
                identity_path=str(identity.path),
                dht_mode="client" if config.is_client or config.behind_nat else "server",
                auto_nat=config.map_ports or config.punches,  # the daemon has one switch for AutoNAT and for holes
                nat_port_map=config.map_ports,
                check_if_identity_free=False,  # costs a second daemon; our lock guards this machine
                startup_timeout=60,
                **options,
            )
    except P2PDaemonError as error:
        if "bootstrap peers" in str(error):
            raise _no_peer_answered(config) from None
        raise PeerUnavailable(f"the p2p daemon did not start: {error}") from None


async def _relays_well(relay: P2P, config: PeerConfig) -> bool:
    """Whether circuits through our daemon get our limits: another daemon asks it for a slot."""
    listening = [_from_here(maddr) for maddr in config.host_maddrs if not maddr.endswith("/tcp/0")]
    seen = [bare_maddr(str(maddr)) for maddr in await relay.get_visible_maddrs()]
    try:
        with daemon_of_our_own():
            asking = await P2P.create(host_maddrs=None, no_listen=True, auto_nat=False, nat_port_map=False)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
                await asking._client.connect(relay.peer_id, [to_multiaddr(maddr) for maddr in (*listening, *seen)])
            return (await reserve(asking, relay.peer_id)).suffices
        finally:
            await asking.shutdown()
    except (FarError, *CANNOT_OPEN) as error:
        log.warning("relay_not_checked", reason=str(error) or type(error).__name__)
        return True


def _from_here(maddr: str) -> str:
    """Where we reach a daemon of this machine that listens at ``maddr``."""
    return maddr.replace("/ip4/0.0.0.0/", "/ip4/127.0.0.1/").replace("/ip6/::/", "/ip6/::1/")


@contextlib.contextmanager
def daemon_of_our_own(relays: RelayLimits | None = None) -> Iterator[None]:
    """The daemon that hivemind starts in here is spared the Ctrl-C of our terminal, and ends when we do.

    Otherwise it would be gone before we can say goodbye through it. hivemind spawns it before it first waits, so two
    peers that start side by side do not get into each other's way. A relay runs on one core: there the right one of
    its two relays wins nine times of ten.
    """
    flags = _NO_RELAY if relays is None else relays.flags
    variables = {} if relays is None else {"GOMAXPROCS": "1"}

    async def spawn(*command: str, env: dict[str, str], **options: Any) -> asyncio.subprocess.Process:
        return await _spawn(
            *command, *flags, env=env | variables, start_new_session=True, preexec_fn=die_with_parent, **options
        )

    asyncio.subprocess.create_subprocess_exec = spawn  # type: ignore[assignment]
    try:
        yield
    finally:
        asyncio.subprocess.create_subprocess_exec = _spawn


async def _open_gate(transport: P2PTransport, config: PeerConfig, membership: Membership) -> Gate:
    """Be introduced to those through whom we join, of whom one is enough, and none where we may start alone.

    Raises:
        NotInvited: our invitation does not count, or not any more.
        FarError: none of them lets us in.
    """
    gate = Gate(transport, membership)
    await gate.start()
    failure: FarError | None = None
    try:
        for maddr in config.initial_peers:
            try:
                await gate.meet(address_of(maddr))
                break
            except NotInvited:  # by the owner's latest word, whoever has told it
                raise
            except FarError as error:
                failure = failure or error
        else:
            if failure is not None and not (config.starts_alone and isinstance(failure, PeerUnavailable)):
                raise failure
    except BaseException:
        await gate.close()
        raise
    return gate


async def _join_dht(p2p: P2P, config: PeerConfig, gate: Gate | None) -> SwarmNode:
    believe = all_are_believed if gate is None else gate.check_announcement
    try:
        async with asyncio.timeout(60):
            return await SwarmNode.join(
                p2p if gate is None else GatedP2P(p2p, gate),
                AnnouncementValidator(config.prefix, believe),
                config.initial_peers,
                is_client=config.is_client or config.behind_nat,
                may_be_alone=config.starts_alone,
            )
    except (RuntimeError, TimeoutError):
        raise _no_peer_answered(config) from None


async def tell_members(charter: SignedCharter, maddrs: Sequence[str]) -> dict[str, FarError | None]:
    """Bring a charter to members, who tell the others. The owner of a swarm need not be in it for that.

    Returns:
        For each address why it was not taken there, or None.

    Raises:
        InvalidArgument: one of the addresses is none.
    """
    for maddr in maddrs:
        check_peer_maddr(maddr)
    identity = ephemeral_identity()
    try:
        p2p = await _launch(identity, PeerConfig(is_client=True))
        try:
            transport = P2PTransport(p2p)
            return {maddr: await _tell_member(transport, maddr, charter) for maddr in maddrs}
        finally:
            await p2p.shutdown()
    finally:
        discard_identity(identity)


async def _tell_member(transport: P2PTransport, maddr: str, charter: SignedCharter) -> FarError | None:
    try:
        await tell_charter(transport, address_of(maddr), charter)
    except FarError as error:
        return error
    return None


def address_of(maddr: str) -> PeerAddress:
    """A multiaddr that ends in ``/p2p/<peer id>``.

    Raises:
        InvalidIdentity: it is not the peer id of an ed25519 key.
    """
    return PeerAddress(check_peer_id(maddr.rpartition("/p2p/")[2]), (bare_maddr(maddr),))


def _no_peer_answered(config: PeerConfig) -> PeerUnavailable:
    peers = ", ".join(config.initial_peers)
    return PeerUnavailable(f"no initial peer answered ({peers}); is the bootstrap peer running?")
