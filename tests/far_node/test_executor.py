"""One thread owns the device, and whatever one step or its session meets, it harms no other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from discovery.protocol.errors import DeadlineExceeded, ProtocolViolation
from discovery.protocol.messages import Priority, Step
from far_node.batcher import Turn
from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from far_node.blocks.slots import Slab, SlotRows
from far_node.blocks.source import find_model
from far_node.blocks.wire import from_wire, to_wire
from far_node.errors import BadPosition, Busy, ComputeFailed, Leaving, SessionUnknown
from far_node.executor import Computed, Executor, Place
from far_node.limits import Limits
from tests.support.architectures import ARCHITECTURES, make_architecture
from tests.support.ring import blocks_of
from tests.support.talks import difference, noise, slab_of

TOLERANCE = 1e-4
SOON = 60.0
MARK = 1000.0  # in the first value of a step that is to blame

Make = Callable[[str], Blocks]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Blocks of another architecture, made once."""

    @cache
    def made(name: str) -> Blocks:
        architecture = next(one for one in ARCHITECTURES if one.name == name)
        path = make_architecture(tmp_path_factory.mktemp("models") / "model", architecture)
        return load_blocks(find_model(str(path)), 0, 6)

    return made


@pytest.fixture
def blocks(tiny: Path) -> Blocks:
    return blocks_of(tiny, 0, 6)


@pytest.fixture
def slab() -> Slab:
    return slab_of(256, 8)


@asynccontextmanager
async def an_executor(**limits: Any) -> AsyncIterator[Executor]:
    executor = Executor(Limits(**limits))
    try:
        async with asyncio.timeout(SOON):
            yield executor
    finally:
        executor.close()


@asynccontextmanager
async def held(executor: Executor) -> AsyncIterator[None]:
    """What is asked meanwhile waits, and is there all at once in the end."""
    begun, release = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        release.wait(SOON)

    holding = asyncio.create_task(executor.run(hold))
    await asyncio.to_thread(begun.wait, SOON)
    try:
        yield
        await asyncio.sleep(0)  # those who ask have asked
    finally:
        release.set()
        await holding


class Client:
    """A session at an executor, which knows what it should be answered."""

    def __init__(self, executor: Executor, blocks: Blocks, slab: Slab, row: int, rows: int = 1, **facts: Any) -> None:
        own = blocks.new_cache() if blocks.one_by_one else SlotRows(slab, row, rows)
        fields: dict[str, Any] = {"codec": "float32", "client": f"client {row}"} | facts
        self.place = Place(blocks, blocks.first, blocks.end, own, **fields)
        self.executor, self.rows = executor, rows
        self.told = torch.zeros(rows, 0, blocks.hidden_size)
        self.sizes = list[int]()

    async def give(self, hidden: Tensor, start: int | None = None, *, keep: int = 0, rows: Any = ()) -> Computed:
        """Have a step computed. What is told counts once it was."""
        start = self.told.shape[1] if start is None else start
        step = Step(0, start, to_wire(hidden, self.place.codec), keep, rows)
        computed = await self.executor.compute(self.place, step, keep)
        told = self.told[list(rows)] if rows else self.told
        self.sizes = [*self.sizes, hidden.shape[1]] if start == told.shape[1] else [start, hidden.shape[1]]
        self.told = torch.cat([told[:, :start], hidden], dim=1)
        return computed

    async def step(self, positions: int = 1, *, seed: int = 0) -> None:
        """A step that must be answered rightly."""
        hidden = noise(self.place.blocks, positions, rows=self.rows, seed=seed)
        await self.check(await self.give(hidden))

    async def check(self, computed: Computed) -> None:
        """Whether that is right, as the answer to the last step."""
        expected = await self.executor.run(self._alone)
        got = from_wire(computed.hidden, expected.device, expected.dtype)
        for row, padded in enumerate(self.place.left_padding or [0] * self.rows):
            seen = min(got.shape[1], expected.shape[1] - padded)
            assert difference(got[row, -seen:], expected[row, -seen:]) < TOLERANCE

    def _alone(self) -> Tensor:
        """The same steps by a session that is alone in the world."""
        place, own = self.place, self.place.blocks.new_cache()
        steps = torch.split(self.told, self.sizes, dim=1)
        return torch.cat(
            [place.blocks.run(step, own, place.first, place.end, place.left_padding) for step in steps], dim=1
        )


class TestCalls:
    """Other things that are done on the device."""

    async def test_they_run_one_after_the_other_in_their_order_on_one_thread(self) -> None:
        story, threads = list[str](), set[int]()

        def call(number: int) -> int:
            threads.add(threading.get_ident())
            story.append(f"{number} begins")
            story.append(f"{number} ends")
            return number

        async with an_executor() as executor:
            answers = await asyncio.gather(*(executor.run(partial(call, number)) for number in range(20)))
        assert answers == list(range(20))
        assert story == [f"{number} {what}" for number in range(20) for what in ("begins", "ends")]
        assert len(threads) == 1
        assert threading.get_ident() not in threads

    @pytest.mark.parametrize("trouble", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")], ids=repr)
    async def test_a_device_without_memory_is_busy(self, trouble: Exception) -> None:
        def call() -> None:
            raise trouble

        async with an_executor() as executor:
            with pytest.raises(Busy, match="out of memory") as failure:
                await executor.run(call)
            assert failure.value.retry_after is not None
            assert await executor.run(lambda: "on it goes") == "on it goes"

    async def test_a_bug_has_a_type_of_its_own_which_nobody_retries(self) -> None:
        async with an_executor() as executor:
            with pytest.raises(ComputeFailed, match="its log says why") as failure:
                await executor.run(lambda: 1 // 0)
            assert not failure.value.retry
            assert "zero" not in failure.value.message, "what broke inside is for the node's own log"
            assert await executor.run(lambda: "on it goes") == "on it goes"

    async def test_errors_of_our_family_pass_as_they_are(self) -> None:
        def call() -> None:
            raise BadPosition("not there")

        async with an_executor() as executor:
            with pytest.raises(BadPosition, match="not there"):
                await executor.run(call)

    async def test_a_call_that_nobody_waits_for_comes_before_what_is_asked_after_it(self) -> None:
        story = list[str]()
        async with an_executor() as executor:
            async with held(executor):
                executor.soon(lambda: story.append("soon"))
                asked = asyncio.create_task(executor.run(lambda: story.append("asked")))
                await asyncio.sleep(0)
            await asked
        assert story == ["soon", "asked"]

    async def test_they_get_in_between_the_chunks_of_a_prefill(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor(prefill_chunk=8) as executor:
            client, seen = Client(executor, blocks, slab, 0), list[int]()
            prefill = asyncio.create_task(client.step(200))
            while not prefill.done():
                seen.append(await executor.run(lambda: client.place.cache.length))
            await prefill
        assert len(set(seen)) > 3


class TestBatches:
    """Steps that wait together."""

    async def test_they_run_in_one_pass_on_the_thread_of_the_calls(self, blocks: Blocks, slab: Slab) -> None:
        threads = set[int]()
        hook = blocks._held[0].register_forward_pre_hook(lambda *_: threads.add(threading.get_ident()))
        async with an_executor() as executor:
            clients = [Client(executor, blocks, slab, row) for row in range(6)]
            async with held(executor):
                steps = [asyncio.create_task(client.step(row + 1)) for row, client in enumerate(clients)]
                await asyncio.sleep(0)
                assert executor.load().queued == 6
            await asyncio.gather(*steps)
            assert (executor.load().batch_rows, executor.load().queued) == (6, 0)
            threads.add(await executor.run(threading.get_ident))
        hook.remove()
        assert len(threads) == 1

    @pytest.mark.parametrize("name", ["mamba", "lfm2_moe", "gpt_neo", "llama, dynamic rope", "falcon, alibi", "jamba"])
    async def test_models_of_other_kinds_answer_rightly_too(self, make: Make, slab: Slab, name: str) -> None:
        blocks = make(name)
        async with an_executor(prefill_chunk=8) as executor:
            clients = [Client(executor, blocks, slab, row) for row in range(4)]
            await clients[3].step(40)
            for turn in range(3):
                async with held(executor):
                    # some at their very beginning, some long, some at their next prompt
                    counts = ([1, 5, 30, 1], [1, 19, 1, 1], [1, 2, 20, 1])[turn]
                    steps = [asyncio.create_task(c.step(n, seed=turn)) for c, n in zip(clients, counts, strict=True)]
                    await asyncio.sleep(0)
                await asyncio.gather(*steps)

    async def test_two_models_at_once_do_not_meet(self, blocks: Blocks, make: Make, slab: Slab) -> None:
        async with an_executor() as executor:
            clients = [Client(executor, blocks, slab, row) for row in range(2)]
            clients += [Client(executor, make("falcon, alibi"), slab_of(256, 8), row) for row in range(2)]
            for positions in (20, 1, 1):
                async with held(executor):
                    steps = [asyncio.create_task(client.step(positions)) for client in clients]
                    await asyncio.sleep(0)
                await asyncio.gather(*steps)

    async def test_rows_with_padding_on_the_left_meet_nobody(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor() as executor:
            padded = [Client(executor, blocks, slab, row, 2, left_padding=(row + 1, 0)) for row in (0, 2)]
            plain = Client(executor, blocks, slab, 4)
            for counts in ((30, 12, 20), (1, 40, 1), (1, 1, 1)):
                async with held(executor):
                    asked = zip([*padded, plain], counts, strict=True)
                    steps = [asyncio.create_task(client.step(positions)) for client, positions in asked]
                    await asyncio.sleep(0)
                await asyncio.gather(*steps)

    async def test_of_one_client_who_is_higher_is_answered_first(self, blocks: Blocks, slab: Slab) -> None:
        order = list[str]()

        async def ask(client: Client) -> None:
            await client.give(noise(blocks, 1))
            order.append(client.place.priority.name)

        async with an_executor(max_batch_size=1) as executor:
            classes = [Priority.LOW, Priority.NORMAL, Priority.HIGH]
            clients = [
                Client(executor, blocks, slab, row, priority=one, client="ann") for row, one in enumerate(classes)
            ]
            async with held(executor):
                steps = [asyncio.create_task(ask(client)) for client in clients]
                await asyncio.sleep(0)
            await asyncio.gather(*steps)
        assert order == ["HIGH", "NORMAL", "LOW"]


class TestSteps:
    """What a step may ask."""

    async def test_it_may_go_back_and_keep_only_the_end(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor() as executor:
            client = Client(executor, blocks, slab, 0)
            await client.step(30)
            computed = await client.give(noise(blocks, 5, seed=1), start=7, keep=2)
            assert computed.hidden.shape == (1, 2, blocks.hidden_size)
            await client.check(computed)
            await client.step()

    async def test_it_may_choose_rows_to_go_on_from(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor() as executor:
            client = Client(executor, blocks, slab, 0, 3)
            await client.step(5)
            await client.check(await client.give(noise(blocks, 1, rows=3, seed=1), rows=(2, 0, 2)))
            await client.step()

    async def test_it_cannot_start_ahead_of_what_was_computed(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor() as executor:
            client = Client(executor, blocks, slab, 0)
            await client.step(3)
            with pytest.raises(BadPosition, match="starts at position 5, but only 3 have been computed"):
                await client.give(noise(blocks, 1), start=5)
            await client.step()

    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    async def test_numbers_that_are_not_finite_are_a_violation(self, blocks: Blocks, slab: Slab, value: float) -> None:
        async with an_executor() as executor:
            client = Client(executor, blocks, slab, 0)
            await client.step(3)
            hidden = noise(blocks, 2)
            hidden[0, 1, 5] = value
            with pytest.raises(ProtocolViolation, match="not finite"):
                await client.give(hidden)
            await client.step(2)

    async def test_results_that_are_not_finite_are_an_error(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor() as executor:
            client = Client(executor, blocks, slab, 0, codec="float16")
            with pytest.raises(ComputeFailed, match="not finite in float16"):
                await client.give(torch.full((1, 2, blocks.hidden_size), 65504.0))


class TestBlame:
    """A batch in which one breaks."""

    @pytest.mark.parametrize(
        ("trouble", "expected"),
        [
            (RuntimeError("no kernel image"), ComputeFailed),
            (torch.OutOfMemoryError("CUDA out of memory"), Busy),
            (MemoryError(), Busy),
        ],
        ids=["bug", "device memory", "memory"],
    )
    async def test_the_one_to_blame_is_told_and_the_others_are_answered(
        self, blocks: Blocks, slab: Slab, trouble: Exception, expected: type[Exception]
    ) -> None:
        tries = list[int]()

        def break_for_the_marked(_: Any, args: tuple[Any, ...]) -> None:
            if (args[0] >= MARK).any():
                tries.append(args[0].shape[1])
                raise trouble

        async with an_executor() as executor:
            clients = [Client(executor, blocks, slab, row) for row in range(4)]
            for row, client in enumerate(clients):
                await client.step(3 + row)
            marked = noise(blocks, 1)
            marked[0, 0, 0] = MARK
            hook = blocks._held[3].register_forward_pre_hook(break_for_the_marked)
            async with held(executor):
                poisoned = asyncio.create_task(clients[1].give(marked))
                steps = [asyncio.create_task(clients[row].step()) for row in (0, 2, 3)]
                await asyncio.sleep(0)
            await asyncio.gather(*steps)
            with pytest.raises(expected) as failure:
                await poisoned
            hook.remove()
            assert tries == [4, 1], "with the others, and then alone"
            assert str(trouble) not in str(failure.value) or not str(trouble)
            await asyncio.gather(*(client.step(seed=2) for client in clients))

    async def test_a_step_that_is_refused_is_not_in_the_pass_of_the_others(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor() as executor:
            clients = [Client(executor, blocks, slab, row) for row in range(3)]
            async with held(executor):
                steps = [asyncio.create_task(client.step(2)) for client in clients[:2]]
                bad = asyncio.create_task(clients[2].give(torch.full((1, 2, blocks.hidden_size), torch.nan)))
                await asyncio.sleep(0)
            await asyncio.gather(*steps)
            assert executor.load().batch_rows == 2
            with pytest.raises(ProtocolViolation):
                await bad

    async def test_a_bug_in_the_choosing_is_told_to_those_who_wait_and_the_thread_goes_on(
        self, blocks: Blocks, slab: Slab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def choose(*_: Any) -> Turn:
            raise ZeroDivisionError

        async with an_executor() as executor:
            clients = [Client(executor, blocks, slab, row) for row in range(3)]
            with monkeypatch.context() as patched:
                patched.setattr(executor._worker.batcher, "next_turn", choose)
                answers = await asyncio.gather(
                    *(client.give(noise(blocks, 2)) for client in clients), return_exceptions=True
                )
            assert [type(answer) for answer in answers] == [ComputeFailed] * 3
            await asyncio.gather(*(client.step(2) for client in clients))


class TestWaiting:
    """How many may wait, and how long."""

    async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor(queue_size=2) as executor:
            clients = [Client(executor, blocks, slab, row) for row in range(3)]
            async with held(executor):
                steps = [asyncio.create_task(client.step()) for client in clients[:2]]
                await asyncio.sleep(0)
                with pytest.raises(Busy, match="2 steps wait") as refusal:
                    await clients[2].give(noise(blocks, 1))
                assert refusal.value.retry_after is not None
                assert refusal.value.retry_after > 0
            await asyncio.gather(*steps)
            await clients[2].step()

    async def test_who_has_waited_too_long_is_told_so(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor(queue_timeout=0.02) as executor:
            clients = [Client(executor, blocks, slab, row) for row in range(2)]
            async with held(executor):
                waiting = asyncio.create_task(clients[0].give(noise(blocks, 1)))
                await asyncio.sleep(0.05)
            with pytest.raises(Busy, match=r"waited for 0.02 s") as refusal:
                await waiting
            assert refusal.value.retry_after is not None
            await clients[1].step()

    async def test_a_step_that_takes_too_long_ends_between_two_chunks(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor(step_timeout=1e-6, prefill_chunk=8) as executor:
            client = Client(executor, blocks, slab, 0)
            with pytest.raises(DeadlineExceeded, match="took more than") as refusal:
                await client.give(noise(blocks, 100))
            assert refusal.value.retry
            assert client.place.cache.length == 8
            await Client(executor, blocks, slab, 1).step()

    async def test_a_caller_that_is_gone_is_not_computed_for(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor() as executor:
            gone, stays = (Client(executor, blocks, slab, row) for row in range(2))
            async with held(executor):
                leaving = asyncio.create_task(gone.give(noise(blocks, 3)))
                call = asyncio.create_task(executor.run(lambda: gone.place.cache.rewind(9)))
                staying = asyncio.create_task(stays.step(3))
                await asyncio.sleep(0)
                leaving.cancel()
                call.cancel()
            await staying
            assert executor.load().queued == 0
            assert executor.load().batch_rows == 1
            assert gone.place.cache.length == 0


class TestClosedSessions:
    """Rows go to others as soon as a session is closed, whatever of it is still on its way."""

    async def test_a_step_that_waits_is_never_computed(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor() as executor:
            former = Client(executor, blocks, slab, 0)
            await former.step(9)
            async with held(executor):
                waiting = asyncio.create_task(former.give(noise(blocks, 3)))
                await asyncio.sleep(0)
                former.place.closed = True
                heir = Client(executor, blocks, slab, 0)
                inherits = asyncio.create_task(heir.step(5))
                await asyncio.sleep(0)
            with pytest.raises(SessionUnknown, match="closed"):
                await waiting
            await inherits
            await heir.step()

    async def test_a_prefill_ends_with_the_chunk_that_runs(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor(prefill_chunk=8) as executor:
            former = Client(executor, blocks, slab, 0)
            loop, heir = asyncio.get_running_loop(), Client(executor, blocks, slab, 0)
            second_chunk, inherits = threading.Event(), list[asyncio.Task[None]]()

            def close_meanwhile(*_: Any) -> None:
                if former.place.cache.length == 8 and not second_chunk.is_set():
                    former.place.closed = True
                    loop.call_soon_threadsafe(lambda: inherits.append(loop.create_task(heir.step(5))))
                    second_chunk.set()

            hook = blocks._held[2].register_forward_pre_hook(close_meanwhile)
            with pytest.raises(SessionUnknown, match="closed"):
                await former.give(noise(blocks, 200))
            hook.remove()
            assert former.place.cache.length == 16
            (inheriting,) = inherits
            await inheriting
            await heir.step()

    async def test_a_step_that_comes_after_is_refused(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor() as executor:
            former = Client(executor, blocks, slab, 0)
            await former.step(9)
            former.place.closed = True
            with pytest.raises(SessionUnknown):
                await former.give(noise(blocks, 1))
            assert former.place.cache.length == 9

    async def test_nor_does_it_touch_the_rows_of_their_next_owner(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor() as executor:
            former, heir = (Client(executor, blocks, slab, 0, 2) for _ in range(2))
            await former.step(9)
            former.place.closed = True
            await heir.step(12)
            with pytest.raises(SessionUnknown):
                await former.give(noise(blocks, 1, rows=2), rows=(1, 0))
            await heir.step()


class TestTheEnd:
    """Closing the executor."""

    async def test_what_was_asked_before_is_answered_and_nothing_after(self, blocks: Blocks, slab: Slab) -> None:
        async with an_executor() as executor:
            clients = [Client(executor, blocks, slab, row) for row in range(3)]
            async with held(executor):
                steps = [asyncio.create_task(client.give(noise(blocks, 40))) for client in clients]
                await asyncio.sleep(0)
                closing = asyncio.create_task(asyncio.to_thread(executor.close))
                await asyncio.sleep(0.02)
                with pytest.raises(Leaving):
                    await executor.run(lambda: None)
            assert [computed.hidden.shape[1] for computed in await asyncio.gather(*steps)] == [40] * 3
            await closing
            with pytest.raises(Leaving, match="computes nothing more"):
                await clients[0].give(noise(blocks, 1))
            executor.soon(lambda: None)
            assert executor.load().queued == 0
            executor.close()

    def test_a_loop_that_is_gone_does_not_end_the_thread(self, blocks: Blocks, slab: Slab) -> None:
        executor = Executor()
        release = threading.Event()

        async def ask_and_go() -> None:
            executor.soon(lambda: print(release.wait(SOON)))
            asyncio.create_task(executor.run(lambda: None)).cancel()
            asking = asyncio.create_task(Client(executor, blocks, slab, 0).give(noise(blocks, 1)))
            await asyncio.sleep(0)
            asking.cancel()

        asyncio.run(ask_and_go())
        release.set()
        asyncio.run(Client(executor, blocks, slab, 1).step())
        executor.close()
