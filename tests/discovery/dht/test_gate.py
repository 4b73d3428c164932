"""The gate of a private swarm, between peers in one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from discovery.dht import gate as gates
from discovery.dht.gate import ADMISSION_PROTOCOL, Gate, GatedTransport, tell_charter
from discovery.dht.memory import MemoryNetwork, MemoryTransport
from discovery.dht.transport import Channel, Stream
from discovery.protocol.errors import NotInvited, PeerUnavailable
from discovery.protocol.membership import (
    Membership,
    SignedCharter,
    Token,
    amend,
    found_swarm,
    hand_over,
    invite,
    read_charter,
)
from discovery.protocol.messages import Failure, InfoRequest, PeerAddress
from tests.support.documents import announcement, key_of, peer_of

OWNER = "owner"
ECHO = "/test/echo/1"


class House:
    """A network with members of one private swarm, and others."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.charter = found_swarm("acme", key_of(OWNER))
        self.gates: dict[str, Gate] = {}
        self.transports: dict[str, Any] = {}

    async def stranger(self, name: str) -> MemoryTransport:
        transport = self.network.join(peer_of(name))
        await transport.serve(ECHO, _echo)
        self.transports[name] = transport
        return transport

    async def member(
        self,
        name: str,
        token: Token | None = None,
        charter: SignedCharter | None = None,
        *,
        seconds: int = 3600,
        file: Path | None = None,
    ) -> GatedTransport:
        token = token or invite(self.charter, key_of(OWNER), "node", seconds, peer_of(name))
        inner = self.network.join(peer_of(name))
        gate = self.gates[name] = Gate(inner, Membership(charter or self.charter, token, file))
        await gate.start()
        transport = self.transports[name] = GatedTransport(inner, gate)
        await transport.serve(ECHO, _echo)
        return transport

    async def close(self) -> None:
        for transport in self.transports.values():
            await transport.close()


async def _echo(stream: Stream) -> None:
    while (frame := await stream.receive()) is not None:
        await stream.send(frame)


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(gates, "WATCH_SECONDS", 0.02)
    house = House()
    yield house
    await house.close()


def at(name: str) -> PeerAddress:
    return PeerAddress(peer_of(name))


async def ends(stream: Stream) -> None:
    """Whether the other side lets go of it, with the right word."""
    channel = Channel(stream)
    async with asyncio.timeout(20):
        with pytest.raises(NotInvited):
            await channel.expect(InfoRequest)


async def test_members_meet_and_know_each_other_after_one_question(house: House) -> None:
    one, _ = await house.member("one"), await house.member("two")
    for _ in range(2):
        stream = await one.open(at("two"), ECHO)
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
    assert house.network.peers[peer_of("one")].visits == 0, "who was introduced is not asked who it is"
    assert house.network.peers[peer_of("two")].visits == 3


async def test_a_stranger_gets_nothing_whatever_it_opens(house: House) -> None:
    await house.member("member")
    stranger = await house.stranger("stranger")
    for _ in range(2):
        stream = await stranger.open(at("member"), ECHO)
        with contextlib.suppress(PeerUnavailable):
            await stream.send(b"hello")
        failure = await Channel(stream).receive()
        assert isinstance(failure, Failure)
        assert failure.code == "not_invited"
        assert await stream.receive() is None


async def test_nor_does_it_get_anything_said(house: House) -> None:
    member, _ = await house.member("member"), await house.stranger("stranger")
    with pytest.raises(PeerUnavailable):
        await member.open(at("stranger"), ECHO)


async def test_a_member_that_was_started_anew_asks_who_knocks(house: House) -> None:
    one, _ = await house.member("one"), await house.member("two")
    await (await one.open(at("two"), ECHO)).close()
    house.gates["two"]._known.clear()
    stream = await one.open(at("two"), ECHO)
    await stream.send(b"again")
    assert await stream.receive() == b"again"


async def test_an_invitation_that_ends_takes_its_streams_with_it(house: House) -> None:
    one, _ = await house.member("one", seconds=2), await house.member("two")
    stream = await one.open(at("two"), ECHO)
    await stream.send(b"before")
    assert await stream.receive() == b"before"
    await ends(stream)
    assert "no longer" in (await house.gates["one"].cast_out()).message
    with pytest.raises(NotInvited):
        await one.open(at("two"), ECHO)


async def test_what_is_revoked_is_heard_of_by_all_and_ends_at_once(house: House, tmp_path: Path) -> None:
    file = tmp_path / "acme.swarm"
    token = invite(house.charter, key_of(OWNER), "node", 3600)
    one = await house.member("one", token)
    two, _ = await house.member("two"), await house.member("three", file=file)
    await (await two.open(at("three"), ECHO)).close()
    stream = await one.open(at("three"), ECHO)
    owner = house.network.join(peer_of(OWNER))
    later = amend(house.charter, key_of(OWNER), revoke=[token.invitation.id])
    await tell_charter(owner, at("two"), later)
    await ends(stream)
    assert "revoked" in (await house.gates["one"].cast_out()).message
    assert [house.gates[name].charter for name in ("two", "three")] == [later, later]
    async with asyncio.timeout(20):
        while not file.exists():
            await asyncio.sleep(0.01)
    assert read_charter(file.read_bytes()) == later
    with pytest.raises(NotInvited, match="revoked"):
        await one.open(at("two"), ECHO)


async def test_a_member_with_an_old_file_learns_what_was_revoked_when_it_comes_back(house: House) -> None:
    token = invite(house.charter, key_of(OWNER), "node", 3600)
    later = amend(house.charter, key_of(OWNER), revoke=[token.invitation.id])
    await house.member("one", charter=later)
    late = await house.member("late")
    await (await late.open(at("one"), ECHO)).close()
    assert house.gates["late"].charter == later
    out = await house.member("out", token)
    with pytest.raises(NotInvited, match="revoked"):
        await out.open(at("late"), ECHO)


async def test_after_the_swarm_changed_hands_the_old_owners_guests_are_out(house: House) -> None:
    old, new = await house.member("old"), hand_over(house.charter, key_of(OWNER), key_of("heir"), 0)
    fresh = await house.member("fresh", invite(new, key_of("heir"), "node", 3600, peer_of("fresh")), new)
    with pytest.raises(NotInvited):
        await old.open(at("fresh"), ECHO)
    with pytest.raises(PeerUnavailable):
        await fresh.open(at("old"), ECHO)


async def test_who_has_no_invitation_that_counts_does_not_even_start(house: House) -> None:
    token = invite(house.charter, key_of(OWNER), "node", 3600, peer_of("another"))
    with pytest.raises(NotInvited, match="is for"):
        await house.member("one", token)
    later = amend(house.charter, key_of(OWNER), revoke=[token.invitation.id])
    with pytest.raises(NotInvited, match="revoked"):
        await house.member("another", token, later)


@pytest.mark.parametrize("said", [b"", b"[]", b"7", b'{"pass": 7}', b"{" * 40_000, b'{"pass": "x"}', b"{}", b"\xff"])
async def test_nonsense_at_the_gate_lets_nobody_in(house: House, said: bytes) -> None:
    await house.member("member")
    stranger = await house.stranger("stranger")
    stream = await stranger.open(at("member"), ADMISSION_PROTOCOL)
    await stream.send(said)
    answer = await stream.receive()
    assert answer is None or set(json.loads(answer)) == {"charter", "why"}
    assert peer_of("stranger") not in house.gates["member"]._known
    member_again = await house.member("another")
    stream = await member_again.open(at("member"), ECHO)
    await stream.send(b"hello")
    assert await stream.receive() == b"hello"


async def test_a_pass_is_of_no_use_to_who_was_shown_it(house: House) -> None:
    await house.member("member")
    bearer = invite(house.charter, key_of(OWNER), "node", 3600)
    thief = await house.stranger("thief")
    stream = await thief.open(at("member"), ADMISSION_PROTOCOL)
    shown = {"pass": bearer.pass_of(peer_of("victim")).to_text(), "charter": house.charter.to_bytes().decode()}
    await stream.send(json.dumps(shown).encode())
    told = json.loads(await stream.receive() or b"")
    assert "another peer's" in told["why"]


async def test_a_forged_charter_changes_nothing(house: House) -> None:
    await house.member("member")
    stranger = await house.stranger("stranger")
    forged = amend(found_swarm("acme", key_of("stranger")), key_of("stranger"))
    await tell_charter(stranger, at("member"), amend(house.charter, key_of(OWNER)))
    with pytest.raises(PeerUnavailable, match="did not take"):
        await tell_charter(stranger, at("member"), forged)


async def test_announcements_are_believed_of_members_who_may_serve(house: House) -> None:
    await house.member("member")
    gate = house.gates["member"]
    serving = invite(house.charter, key_of(OWNER), "node", 3600).pass_of(peer_of("node")).to_text()
    asking = invite(house.charter, key_of(OWNER), "client", 3600).pass_of(peer_of("node")).to_text()
    gate.check_announcement(announcement("node", invitation=serving))
    for who, shown in (("node", None), ("node", asking), ("thief", serving)):
        with pytest.raises(NotInvited):
            gate.check_announcement(announcement(who, invitation=shown))
