"""A private swarm of real processes: who is invited comes in, nobody else gets anything, and who is revoked is out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import far_mesh.cli
import far_node.cli
from discovery.dht.identity import discard_identity, ephemeral_identity, load_identity
from discovery.dht.peer import PeerConfig, SwarmPeer, address_of
from discovery.protocol.errors import FarError, NotInvited, PeerUnavailable
from discovery.protocol.membership import Membership, SignedCharter, Token, amend, found_swarm, invite, membership_of
from discovery.protocol.messages import INFO_PROTOCOL, LINK_PROTOCOL, SESSION_PROTOCOL, Failure, PeerAddress, decode
from far_mesh.client import Mesh
from far_mesh.config import GenerationOptions, MeshConfig
from far_mesh.opener import Swarm
from tests.support.documents import DIGEST, key_of, peer_of, signed_announcement
from tests.support.models import greedy, whole_model
from tests.support.ports import free_port
from tests.support.swarm import ANY_LOCAL_PORT, Process, Town, run_here

pytestmark = pytest.mark.swarm

PROMPT, TOKENS = list(range(1, 20)), 8


class Club(Town):
    """A town whose swarm is private, with its owner's files."""

    @property
    def file(self) -> Path:
        return self.directory / "acme.swarm"

    @property
    def owner(self) -> Path:
        return self.directory / "owner.key"

    def found(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.tell("swarm", "new", str(self.file), "--name", "acme", "--owner", str(self.owner))

    def tell(self, *arguments: str) -> dict[str, Any]:
        """A command of the owner's, and what it told first."""
        done = run_here(far_mesh.cli.app, *arguments, "--json")
        assert done.status == 0, done.out + done.err
        return done.events[0]

    def invite(self, role: str = "node") -> dict[str, Any]:
        return self.tell("invite", "--swarm", str(self.file), "--owner", str(self.owner), "--role", role)

    def entry(self, invitation: dict[str, Any]) -> tuple[str, ...]:
        return "--swarm", str(self.file), "--invite", str(invitation["invitation"])

    def start_bootstrap(self, *initial_peers: str) -> Process:
        options = ["--json", "--host-maddr", self._listen_at(), "--identity", str(self.directory / "bootstrap.id")]
        return self.start("bootstrap", ["discovery.cli", "bootstrap", *options, *self.entry(self.invite())])


@pytest.fixture(scope="module")
def club(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Club]:
    club = Club(tmp_path_factory.mktemp("club"))
    club.found()
    with club:
        yield club


def config_of(club: Club, invitation: dict[str, Any]) -> MeshConfig:
    membership = membership_of(club.file, str(invitation["invitation"]))
    assert membership is not None
    return MeshConfig(prefix=membership.charter.swarm, membership=membership)


async def answer_to(club: Club, model: Path, config: MeshConfig) -> list[int]:
    async with await Mesh.join(str(model), club.initial_peers, config) as mesh:
        generation = await mesh.open(PROMPT, GenerationOptions(max_tokens=TOKENS))
        ids = [token.id async for token in generation]
        await generation.finish()
        return ids


def test_who_is_invited_comes_in_nobody_else_gets_anything_and_who_is_revoked_is_out(
    club: Club, gpt2_model: Path
) -> None:
    swarm = club.tell("swarm", "show", str(club.file))["swarm"]
    invitation, guest = club.invite(), club.invite("client")
    node = club.start_node(gpt2_model, (0, 6), *club.entry(invitation))
    uninvited = club.start_node(gpt2_model, (0, 6), "--prefix", swarm)
    node.wait_until_ready()
    answer = asyncio.run(answer_to(club, gpt2_model, config_of(club, guest)))
    assert answer == greedy(whole_model(gpt2_model), PROMPT, TOKENS)

    entry = "--initial-peers", club.bootstrap.maddr, *club.entry(guest)
    route = club.tell("route", "--model", str(gpt2_model), *entry)
    assert [hop["peer_id"] for hop in route["hops"]] == [node.peer_id]
    prober = "--identity", str(club.directory / "prober"), "--host-maddr", ANY_LOCAL_PORT
    probed = run_here(far_mesh.cli.app, "probe", "--once", "--json", "--weights", str(gpt2_model), *prober, *entry)
    assert [told["verdict"] for told in probed.events if told["event"] == "probed"] == ["right"]
    settings = club.directory / "visitor.toml"
    settings.write_text(f'swarm = "{club.file}"\ninvite = "{guest["invitation"]}"\n')
    visited = run_here(far_node.cli.app, "peers", "--json", "--config", str(settings), *entry[:2])
    assert [event["peer_id"] for event in visited.events] == [node.peer_id]

    assert uninvited.wait() == 1
    assert "ready" not in [told["event"] for told in uninvited.events()]
    asyncio.run(nobody_gets_anything(club, gpt2_model, swarm, node))

    of_the_owner = str(club.file), "--owner", str(club.owner)
    named = club.tell("swarm", "join-through", *of_the_owner, "--initial-peers", club.bootstrap.maddr)
    assert (named["serial"], named["initial_peers"]) == (2, [club.bootstrap.maddr])
    assert club.tell("swarm", "revoke", *of_the_owner, invitation["id"])["revoked"] == [invitation["id"]]
    assert node.wait() == 1
    assert node.events()[-1]["code"] == "not_invited"
    assert club.bootstrap.popen.poll() is None


async def nobody_gets_anything(club: Club, model: Path, swarm: str, node: Process) -> None:
    """Who knows all but an invitation: addresses, ids, the name of the swarm, and how we speak."""
    with pytest.raises(FarError):
        await answer_to(club, model, MeshConfig(prefix=swarm))
    identity = ephemeral_identity()
    alone = await SwarmPeer.start(identity, PeerConfig(prefix=swarm))
    try:
        address: PeerAddress = address_of(node.maddr)
        for protocol in (SESSION_PROTOCOL, LINK_PROTOCOL, INFO_PROTOCOL):
            stream = await alone.transport.open(address, protocol)
            said = await stream.receive()
            assert said is not None
            failure = decode(said)
            assert isinstance(failure, Failure)
            assert failure.code == "not_invited"
            assert await stream.receive() is None
        assert await alone.board.all_nodes() == []
    finally:
        await alone.close()
        discard_identity(identity)


async def test_an_invitation_of_another_swarm_opens_nothing(club: Club, tmp_path: Path) -> None:
    other = Club(tmp_path)
    other.found()
    membership = membership_of(other.file, str(other.invite()["invitation"]))
    assert membership is not None
    with pytest.raises(PeerUnavailable, match="another swarm"):
        await Swarm.join(club.initial_peers, MeshConfig(prefix=membership.charter.swarm, membership=membership))


NOBODY = f"/ip4/127.0.0.1/tcp/9/p2p/{peer_of('nobody')}"


class Founders:
    """Bootstrap peers of a private swarm, in this process, and its owner."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.charter = directory, found_swarm("acme", key_of("owner"))

    def token(self) -> Token:
        return invite(self.charter, key_of("owner"), "node", 3600)

    @asynccontextmanager
    async def peer(
        self, name: str, initial_peers: tuple[str, ...], door: str, token: Token, charter: SignedCharter | None = None
    ) -> AsyncIterator[SwarmPeer]:
        """One that starts whether the others are there or not."""
        config = PeerConfig(
            initial_peers=initial_peers,
            host_maddrs=(door,),
            prefix=self.charter.swarm,
            membership=Membership(charter or self.charter, token),
            starts_alone=True,
        )
        peer = await SwarmPeer.start(load_identity(self.directory / name), config)
        try:
            yield peer
        finally:
            await peer.close()


async def test_of_two_that_name_each_other_the_first_starts_alone_lets_no_stranger_in_and_is_joined_by_the_second(
    tmp_path: Path,
) -> None:
    founders, names = Founders(tmp_path), ("first", "second")
    doors = {name: f"/ip4/127.0.0.1/tcp/{free_port()}" for name in names}
    maddrs = {name: f"{doors[name]}/p2p/{load_identity(tmp_path / name).peer_id}" for name in names}
    token = founders.token()
    async with founders.peer("first", (maddrs["second"],), doors["first"], token) as first:
        assert not first.has_joined
        stranger = PeerConfig(initial_peers=(maddrs["first"],), prefix=founders.charter.swarm, is_client=True)
        with pytest.raises(PeerUnavailable):
            await SwarmPeer.start(load_identity(tmp_path / "stranger"), stranger)
        async with founders.peer("second", (maddrs["first"],), doors["second"], founders.token()) as second:
            assert second.has_joined
            async with asyncio.timeout(60):
                await first.joined()
            shown = token.pass_of(peer_of("node")).to_text()
            announced = signed_announcement("node", swarm=founders.charter.swarm, invitation=shown)
            assert await second.board.publish(announced)
            assert [one.peer_id for one in await first.board.nodes_of(DIGEST)] == [peer_of("node")]


async def test_who_is_revoked_hears_of_it_and_does_not_start_alone(tmp_path: Path) -> None:
    founders = Founders(tmp_path)
    token = founders.token()
    later = amend(founders.charter, key_of("owner"), revoke=[token.invitation.id])
    async with founders.peer("member", (), ANY_LOCAL_PORT, founders.token(), later) as member:
        (maddr,) = await member.maddrs()
        with pytest.raises(NotInvited, match="revoked"):
            async with founders.peer("revoked", (NOBODY, maddr), ANY_LOCAL_PORT, token):
                pass


async def test_who_must_not_be_alone_does_not_start_while_nobody_answers(tmp_path: Path) -> None:
    charter = found_swarm("acme", key_of("owner"))
    membership = Membership(charter, invite(charter, key_of("owner"), "node", 3600))
    config = PeerConfig(initial_peers=(NOBODY,), prefix=charter.swarm, membership=membership)
    with pytest.raises(PeerUnavailable):
        await SwarmPeer.start(load_identity(tmp_path / "identity"), config)
