"""The queue through the doors: nothing is held of who waits, a stream tells where they stand, and they may leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import grpc.aio
import httpx
import pytest

from far_mesh.marketplace.grpc_api.far_pb2 import InferRequest
from far_mesh.marketplace.grpc_api.far_pb2_grpc import FarMeshStub
from far_mesh.marketplace.inference.admission import Gate
from far_node.errors import Busy
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, NODES, STORY, GenerationDouble, MeshDouble
from tests.far_mesh.marketplace.house import House, User

LENT: dict[str, Any] = {"unsettled_limit_units": 10**12}
PATH = "/api/inference/distributed/generate"
ASK = {"model_id": MODEL, "prompt": "Tell me a story", "max_tokens": 12, "stream": True}


def gate_of(house: House) -> Gate:
    """The queue in front of the model."""
    gate: Gate = house.rooms.inference.gates[MODEL]
    return gate


async def until(condition: Callable[[], Any]) -> None:
    """Until it is so."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


class Reader:
    """Reads a stream, until it is over or the reader hangs up."""

    def __init__(
        self, user: User, path: str = PATH, body: dict[str, Any] | None = None, key: str | None = None
    ) -> None:
        self.lines: list[str] = []
        self.status = 0
        self._url, self._body = user.house.url + PATH, ASK if body is None else body
        self._headers = {"authorization": f"Bearer {user.token}"}
        if key is not None:
            self._headers["idempotency-key"] = key
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async with (
            httpx.AsyncClient(timeout=20, headers=self._headers) as client,
            client.stream("POST", self._url, json=self._body) as answer,
        ):
            self.status = answer.status_code
            async for line in answer.aiter_lines():
                self.lines.append(line)

    @property
    def comments(self) -> list[str]:
        """What is said beside events."""
        return [line for line in self.lines if line.startswith(":")]

    @property
    def events(self) -> list[dict[str, Any]]:
        """What is said."""
        return [json.loads(line.removeprefix("data: ")) for line in self.lines if line.startswith("data: {")]

    async def hang_up(self) -> None:
        """In the middle."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def end(self) -> None:
        """Until it is over."""
        await asyncio.wait_for(self._task, 60)


class Counter:
    """A house with one session, which its first request has until the gate is opened."""

    def __init__(self, open_house: OpenHouse, **changes: Any) -> None:
        self._opened = asyncio.Event()
        self.house = open_house(MeshDouble(gate=self._opened), model_sessions=1, **LENT | changes)
        self.user = self.house.user()
        self.gate = gate_of(self.house)

    async def first(self) -> Reader:
        """The request that has it."""
        reader = Reader(self.user)
        await until(lambda: self.gate.in_use == 1 and self.user.balance()["held_units"])
        self.held = self.user.balance()["held_units"]
        return reader

    def open(self) -> None:
        """Let answers come."""
        self.house.loop.loop.call_soon_threadsafe(self._opened.set)

    def is_empty(self) -> bool:
        """Whether nobody is in the queue or behind it, and nothing is held."""
        held: int = self.user.balance()["held_units"]
        return self.gate.in_use == self.gate.waiting == held == 0


async def test_a_stream_that_waits_tells_where_it_stands_and_nothing_is_held_of_it(open_house: OpenHouse) -> None:
    counter = Counter(open_house)
    readers = [await counter.first()]
    for place in (1, 2):
        readers.append(Reader(counter.user))
        await until(lambda: counter.gate.waiting == place)  # noqa: B023  # it is waited for here
    await until(lambda: readers[1].comments and readers[2].comments)
    assert [reader.comments[:1] for reader in readers] == [[], [": queued 1"], [": queued 2"]]
    assert counter.user.balance()["held_units"] == counter.held
    counter.open()
    for reader in readers:
        await reader.end()
        *tokens, done = reader.events
        assert "".join(token["token"] for token in tokens) == "".join(STORY)
        assert done["done"] is True
    assert counter.is_empty()


async def test_who_hangs_up_while_waiting_leaves_the_queue(open_house: OpenHouse) -> None:
    counter = Counter(open_house)
    first = await counter.first()
    told = Reader(counter.user)
    await until(lambda: told.comments)
    untold = Reader(counter.user, body=ASK | {"stream": False})
    await until(lambda: counter.gate.waiting == 2)
    for reader, left in ((untold, 1), (told, 0)):
        await reader.hang_up()
        await until(lambda: counter.gate.waiting == left)  # noqa: B023  # it is waited for here
    assert counter.user.balance()["held_units"] == counter.held
    counter.open()
    await first.end()
    await until(counter.is_empty)


async def test_who_hangs_up_over_grpc_while_waiting_leaves_the_queue(open_house: OpenHouse) -> None:
    counter = Counter(open_house)
    first = await counter.first()
    port = await asyncio.to_thread(counter.house.open_grpc)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        metadata = (("authorization", f"Bearer {counter.user.token}"),)
        request = InferRequest(model_id=MODEL, prompt="Tell me a story", max_tokens=12)
        for method in (FarMeshStub(channel).Infer, FarMeshStub(channel).InferStream):
            call = method(request, metadata=metadata)
            await until(lambda: counter.gate.waiting == 1)
            call.cancel()
            await until(lambda: counter.gate.waiting == 0)
    counter.open()
    await first.end()
    await until(counter.is_empty)


async def test_a_full_queue_is_429_and_says_when_to_come_back(open_house: OpenHouse) -> None:
    counter = Counter(open_house, queue_size=0)
    first = await counter.first()
    refused = counter.user.generate(stream=True)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "queue_full"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.headers["retry-after"] == "5"
    counter.open()
    await first.end()


async def test_who_is_not_served_in_time_is_told_in_the_stream_or_by_the_status(open_house: OpenHouse) -> None:
    counter = Counter(open_house, queue_seconds=3.0)
    first = await counter.first()
    reader = Reader(counter.user)
    await until(lambda: counter.gate.waiting == 1)
    refused = await asyncio.to_thread(counter.user.generate)
    await reader.end()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_timeout")
    assert int(refused.headers["retry-after"]) >= 1
    assert (reader.status, reader.comments[:1]) == (200, [": queued 1"])
    assert reader.events[-1]["error"]["code"] == "queue_timeout"
    counter.open()
    await first.end()
    await until(counter.is_empty)


async def test_the_same_request_twice_is_a_conflict_while_it_waits_too(open_house: OpenHouse) -> None:
    counter = Counter(open_house)
    first = await counter.first()
    waits = Reader(counter.user, key="mine")
    await until(lambda: counter.gate.waiting == 1)
    again = counter.user.http.post(PATH, json=ASK, headers={"idempotency-key": "mine"})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
    await waits.hang_up()
    await until(lambda: counter.gate.waiting == 0)
    retry = Reader(counter.user, key="mine")
    await until(lambda: counter.gate.waiting == 1)
    counter.open()
    await first.end()
    await retry.end()
    assert retry.events[-1]["done"] is True
    assert counter.user.http.post(PATH, json=ASK, headers={"idempotency-key": "mine"}).status_code == 409


async def test_who_could_not_pay_does_not_stand_in_line(open_house: OpenHouse) -> None:
    counter = Counter(open_house)
    first = await counter.first()
    poor = await asyncio.to_thread(counter.house.user, 1000)
    refused = poor.generate()
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_balance")
    assert counter.gate.waiting == 0
    counter.open()
    await first.end()


async def test_a_gateway_that_stops_sends_away_who_waits_and_finishes_the_others(open_house: OpenHouse) -> None:
    counter = Counter(open_house)
    first = await counter.first()
    told, untold = Reader(counter.user), Reader(counter.user, body=ASK | {"stream": False})
    await until(lambda: told.comments and counter.gate.waiting == 2)
    inference = counter.house.rooms.inference
    closing = asyncio.run_coroutine_threadsafe(inference.close(10.0), counter.house.loop.loop)
    await told.end()
    await untold.end()
    assert told.events[-1]["error"]["code"] == "shutting_down"
    assert untold.status == 503
    assert json.loads(untold.lines[0])["error"]["code"] == "shutting_down"
    counter.open()
    await first.end()
    assert first.events[-1]["done"] is True
    await asyncio.wrap_future(closing)
    assert counter.is_empty()


async def test_sessions_of_one_account_are_limited_by_its_tier(open_house: OpenHouse) -> None:
    opened = asyncio.Event()
    tiers = {"standard": {"concurrent_requests": 2}}
    house = open_house(MeshDouble(gate=opened), tiers=tiers, **LENT)
    busy, other = house.user(), house.user()
    readers = [Reader(busy) for _ in range(3)]
    await until(lambda: gate_of(house).in_use == 2 and gate_of(house).waiting == 1)
    readers.append(Reader(other))
    await until(lambda: gate_of(house).in_use == 3)
    house.loop.loop.call_soon_threadsafe(opened.set)
    for reader in readers:
        await reader.end()
        assert reader.events[-1]["done"] is True


class FullMesh(MeshDouble):
    """Its nodes have no room each second time."""

    asked_for_room = 0

    async def open(self, prompt_ids: Any, options: Any, **more: Any) -> GenerationDouble:
        """A route, or none yet."""
        self.asked_for_room += 1
        if self.asked_for_room % 2:
            raise Busy("64 sessions are open, the most this node takes", retry_after=0.02)
        return await super().open(prompt_ids, options, **more)


async def test_nodes_without_room_are_asked_again_and_the_caller_sees_an_answer(open_house: OpenHouse) -> None:
    mesh = FullMesh()
    house = open_house(mesh, **LENT)
    user = house.user()
    body = {"model": MODEL, "prompt": "Tell me a story", "max_tokens": 12, "n": 4}
    answer = user.http.post("/v1/completions", json=body).json()
    assert [choice["text"] for choice in answer["choices"]] == ["".join(STORY)] * 4
    assert mesh.asked_for_room == 8
    assert user.balance()["held_units"] == 0


async def test_nodes_that_never_have_room_are_one_clear_refusal_and_nothing_is_charged(open_house: OpenHouse) -> None:
    house = open_house(MeshDouble(refuse_to_open=Busy("full", retry_after=0.05)), queue_seconds=0.2, **LENT)
    user = house.user()
    before = user.balance()
    refused = user.generate()
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
    assert user.balance() == before
    assert gate_of(house).in_use == 0


async def test_who_waits_for_nodes_is_told_what_for(open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("far_mesh.marketplace.inference.admission.LOOK_SECONDS", 0.05)
    counter = Counter(open_house)
    first = await counter.first()
    waits = Reader(counter.user)
    await until(lambda: waits.comments)
    mesh = counter.house.mesh
    assert isinstance(mesh, MeshDouble)
    mesh.serving = NODES[:1]
    await until(lambda: any("no node serves blocks 3:8" in comment for comment in waits.comments))
    mesh.serving = NODES
    counter.open()
    await first.end()
    await waits.end()
    assert waits.events[-1]["done"] is True


async def test_a_caller_of_grpc_who_takes_nothing_is_cut_off_and_billed_for_what_was_delivered(
    open_house: OpenHouse,
) -> None:
    mesh = MeshDouble(story=["x" * 200_000] * 60)
    house = open_house(mesh, reader_seconds=0.3, **LENT)
    user = house.user(10**10)
    port = await asyncio.to_thread(house.open_grpc)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = InferRequest(model_id=MODEL, prompt="Tell me a story", max_tokens=55)
        call = FarMeshStub(channel).InferStream(request, metadata=(("authorization", f"Bearer {user.token}"),))
        await until(lambda: mesh.generations and mesh.generations[0].finished)
        await until(lambda: user.balance()["held_units"] == 0)
        call.cancel()
    usage = user.http.get("/api/account/usage").json()["total"]
    assert 0 < usage["completion_tokens"] < 55
    assert gate_of(house).in_use == 0


async def test_a_reader_who_takes_nothing_is_billed_for_what_was_delivered_and_frees_the_session(
    open_house: OpenHouse,
) -> None:
    mesh = MeshDouble(story=["x" * 100_000] * 60)
    house = open_house(mesh, reader_seconds=0.3, **LENT)
    user = house.user(10**10)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(house.url.rsplit(":", 1)[1]), limit=1024)
    body = json.dumps(ASK | {"max_tokens": 55}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: far.test\r\nauthorization: Bearer {user.token}\r\n"
    writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    answered = await reader.readuntil(b"\r\n\r\n")
    request_id = next(line for line in answered.decode().split("\r\n") if line.startswith("x-far-request-id")).split()[
        1
    ]
    await until(lambda: mesh.generations and mesh.generations[0].finished)
    await until(lambda: user.balance()["held_units"] == 0)
    report = user.request(request_id)
    assert report["status"] == "completed"
    assert 0 < report["completion_tokens"] < 55
    assert gate_of(house).in_use == 0
    writer.close()
