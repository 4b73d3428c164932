"""Waking nodes that sleep: who is called, how long they are waited for, and who is not called again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from ipaddress import IPv4Network
from typing import Any

import pytest

from discovery.protocol.announcement import Announcement
from discovery.protocol.oncall import Calls, Registration, register
from discovery.web.outbound import Outbound, Policy
from far_mesh import waking
from far_mesh.waking import Rouser
from tests.support.documents import announcement, key_of, peer_of

LOCAL = Policy(frozenset(range(1, 65_536)), (IPv4Network("127.0.0.0/8"),), http=True, seconds=0.5)


class Street:
    """Doors on this machine, and who is up."""

    def __init__(self) -> None:
        self.up: list[Announcement] = []
        self.rung: list[bytes] = []
        self.errands: set[asyncio.Task[None]] = set()

    async def look(self) -> list[Announcement]:
        return self.up

    def run(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self.errands.add(task)
        task.add_done_callback(self.errands.discard)

    def rouser(self, patience: float = 20.0, policy: Policy = LOCAL) -> Rouser:
        return Rouser(key_of("client"), Outbound(policy), self.look, patience, self.run)

    @asynccontextmanager
    async def door(self, answer: bytes | None, *, comes: Announcement | None = None) -> AsyncIterator[str]:
        """A door that says ``answer`` (None: nothing), after which a node may come up."""

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            self.rung.append(await reader.readexactly(int(length.partition(b":")[2])))
            if answer is not None:
                writer.write(b"HTTP/1.1 " + answer + b"\r\ncontent-length: 0\r\n\r\n")
                if comes is not None:
                    self.up = [*self.up, comes]
            else:
                await reader.read()
            writer.close()

        server = await asyncio.start_server(hear, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/wake"
        finally:
            server.close()


@pytest.fixture
async def street(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Street]:
    monkeypatch.setattr(waking, "LOOK_SECONDS", 0.01)
    street = Street()
    yield street
    for errand in street.errands:
        errand.cancel()
    await asyncio.gather(*street.errands, return_exceptions=True)


def sleeper(url: str, name: str = "node") -> Registration:
    return register(announcement(name), key_of(name), url, int(time.time()) + 3600).registration


async def test_a_node_is_called_and_waited_for(street: Street) -> None:
    async with street.door(b"202 Accepted", comes=announcement("node")) as url:
        assert await street.rouser().wake([sleeper(url)])
    (said,) = street.rung
    assert Calls(url, frozenset({peer_of("node")})).hear(said) == peer_of("node")


async def test_many_who_need_it_call_once(street: Street) -> None:
    rouser = street.rouser()
    async with street.door(b"202 Accepted", comes=announcement("node")) as url:
        assert all(await asyncio.gather(*(rouser.wake([sleeper(url)]) for _ in range(20))))
    assert len(street.rung) == 1


@pytest.mark.parametrize("answer", [None, b"403 Forbidden", b"302 Found", b"nonsense"], ids=repr)
async def test_a_door_that_hangs_or_says_no_is_not_rung_again(street: Street, answer: bytes | None) -> None:
    rouser = street.rouser()
    async with street.door(answer, comes=announcement("node")) as url:
        about = sleeper(url)
        assert rouser.willing([about]) == [about]
        assert not await rouser.wake([about])
        assert rouser.willing([about]) == []


async def test_a_door_that_lies_is_found_out_by_nobody_coming(street: Street) -> None:
    rouser = street.rouser(patience=0.3)
    another = announcement("another")
    of_other_blocks = announcement("node", first_block=2)
    on_its_way_out = announcement("node", state="leaving")
    street.up = [of_other_blocks, on_its_way_out]
    async with street.door(b"200 OK", comes=another) as url:
        assert not await rouser.wake([sleeper(url)])
    assert rouser.willing([sleeper(url)]) == []
    assert rouser.willing([sleeper(url, "another")]) != []


async def test_one_that_fails_is_told_of_while_others_are_on_their_way(street: Street) -> None:
    rouser = street.rouser()
    async with street.door(b"500 Oh", comes=None) as wrong, street.door(b"202 Accepted") as right:
        both = [sleeper(right), sleeper(wrong, "liar")]
        assert not await rouser.wake(both)
        again = asyncio.create_task(rouser.wake(both[:1]))
        await asyncio.sleep(0.05)  # it waits for the call that is under way
        street.up = [announcement("node")]
        assert await again
    assert len(street.rung) == 2


async def test_only_public_addresses_over_tls_are_called(street: Street) -> None:
    rouser = street.rouser(policy=Policy())
    async with street.door(b"202 Accepted", comes=announcement("node")) as url:
        for address in (url, "https://10.0.0.1/wake", "https://127.0.0.1/wake", "https://[::1]:8443/wake"):
            assert not await rouser.wake([sleeper(address)])
    assert street.rung == []
