"""A model on a node: what its cache costs, whom it takes, and what a session is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from discovery.protocol.errors import FarError, InvalidArgument
from discovery.protocol.ids import PeerId, new_session_id
from discovery.protocol.messages import Open, Priority
from far_node.blocks.cache import BlockCache
from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from far_node.blocks.slots import SlotRows
from far_node.blocks.source import find_model
from far_node.errors import BlocksNotServed, Busy, ComputeFailed, Leaving, OutOfCache, PriceTooLow, SessionTooLong
from far_node.executor import Executor
from far_node.limits import Limits
from far_node.receipts import Signer
from far_node.serving import Serving, Standing, measure_cache
from tests.support.architectures import ARCHITECTURES, make_architecture
from tests.support.documents import DIGEST, announcement, key_of, peer_of
from tests.support.models import BLOCKS, KINDS, make_model
from tests.support.talks import noise

PROMISED = ("llama", "mistral", "gpt2", "bloom", "deepseek_v3", "longcat_flash", "jamba", "lfm2_moe", "qwen3_next")

Make = Callable[[str], Blocks]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """All blocks of a kind, made once."""

    @cache
    def made(kind: str) -> Blocks:
        directory = tmp_path_factory.mktemp("models") / "model"
        if kind in KINDS:
            path: Path = make_model(directory, kind)
        else:
            path = make_architecture(directory, next(one for one in ARCHITECTURES if one.name == kind))
        return load_blocks(find_model(str(path)), 0, BLOCKS)

    return made


@pytest.fixture
async def executor() -> AsyncIterator[Executor]:
    made = Executor()
    yield made
    await asyncio.to_thread(made.close)


async def prepared(blocks: Blocks, executor: Executor, price_units: int = 0, **changes: Any) -> Serving:
    about = announcement(first_block=0, end_block=BLOCKS, block_count=BLOCKS, price_units=price_units)
    options: dict[str, Any] = {"cache_bytes": 1 << 26, "context_length": 256} | changes
    return await Serving.prepare(about, blocks, Signer(key_of("node"), about), executor, **options)


def opening(**changes: Any) -> Open:
    fields: dict[str, Any] = {
        "session_id": new_session_id(),
        "nonce": bytes(16),
        "model_digest": DIGEST,
        "first_block": 0,
        "end_block": BLOCKS,
        "max_length": 100,
        "batch": 1,
        "codec": "float32",
        "previous": None,
        "next": None,
    }
    return Open(**fields | changes)


CLIENT = PeerId(peer_of("client"))


class TestCost:
    """What a position of cache takes, measured."""

    def test_it_is_keys_and_values_where_there_is_nothing_else(self, make: Make) -> None:
        cost = measure_cache(make("llama"))
        assert cost.position_bytes == (2 * 2 * 16 * 4,) * BLOCKS, "keys and values of two heads in float32"
        assert cost.fixed_bytes == (0,) * BLOCKS

    def test_a_block_with_two_attentions_counts_both(self, make: Make) -> None:
        blocks = make("longcat_flash")
        own = blocks.new_cache()
        blocks.run(noise(blocks, 10), own, 0, BLOCKS)
        assert measure_cache(blocks).of(1, 10, (0, BLOCKS)) == sum(own.held_bytes())

    def test_a_recurrent_state_is_paid_once(self, make: Make) -> None:
        cost = measure_cache(make("mamba"))
        assert cost.position_bytes == (1,) * BLOCKS
        assert min(cost.fixed_bytes) > 1000

    def test_blocks_of_a_hybrid_have_costs_of_their_own(self, make: Make) -> None:
        cost = measure_cache(make("lfm2_moe"))  # conv, conv, attention
        keys_and_values = cost.position_bytes[2]
        assert cost.position_bytes == (1, 1, keys_and_values) * 2
        assert keys_and_values > 100
        assert cost.of(1, 200, (2, 3)) > 50 * cost.of(1, 200, (0, 1)) > 0

    @pytest.mark.parametrize("kind", PROMISED)
    @pytest.mark.parametrize("span", [(0, 6), (2, 3), (3, 6)], ids=str)
    async def test_no_session_takes_more_than_it_was_promised(
        self, make: Make, executor: Executor, kind: str, span: tuple[int, int]
    ) -> None:
        blocks = make(kind)
        serving = await prepared(blocks, executor)
        asked = opening(first_block=span[0], end_block=span[1], batch=2)
        place = serving.admit(asked, CLIENT)
        rows = place.cache
        assert isinstance(rows, SlotRows)
        blocks.run_together([(noise(blocks, 100, rows=2), rows)], *span)
        held = [tensor for row in range(2) for layer in rows.slab.row(row).values() for tensor in layer]
        held += [state for layer in rows.states.values() for kind in layer.values() for state in kind.values()]
        assert _bytes_of(held) <= serving.budget.used_bytes <= 1.1 * _bytes_of(held) + 10_000


def _bytes_of(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class TestPreparing:
    """Before the first session."""

    async def test_a_cache_that_holds_no_session_is_refused(self, make: Make, executor: Executor) -> None:
        least = 64 * BLOCKS * 2 * 2 * 16 * 4
        serving = await prepared(make("llama"), executor, cache_bytes=least)
        serving.admit(opening(max_length=64), CLIENT)
        with pytest.raises(InvalidArgument, match=rf"{least - 1} bytes does not hold one session .* takes {least}"):
            await prepared(make("llama"), executor, cache_bytes=least - 1)

    async def test_blocks_that_do_not_compute_are_not_served(
        self, make: Make, executor: Executor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blocks = make("llama")
        hook = blocks._held[3].register_forward_pre_hook(lambda *_: 1 // 0)
        with pytest.raises(ComputeFailed):
            await prepared(blocks, executor)
        hook.remove()
        assert (await prepared(blocks, executor)).standing is Standing.READY


class TestAdmission:
    """Whom it takes, and with what."""

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"first_block": 0, "end_block": 7}, BlocksNotServed),
            ({"first_block": 6, "end_block": 7}, BlocksNotServed),
            ({"max_length": 257}, SessionTooLong),
        ],
    )
    async def test_what_cannot_be_served_at_all_is_said(
        self, make: Make, executor: Executor, changes: dict[str, int], error: type[FarError]
    ) -> None:
        serving = await prepared(make("llama"), executor)
        with pytest.raises(error):
            serving.check(opening(**changes))
        serving.check(opening(max_length=256))

    @pytest.mark.parametrize("offered", [0, 99])
    async def test_who_offers_less_than_the_owner_asks_for_is_refused(
        self, make: Make, executor: Executor, offered: int
    ) -> None:
        serving = await prepared(make("llama"), executor, price_units=100)
        with pytest.raises(PriceTooLow, match=f"{offered} units are offered .* 100 are asked for") as refused:
            serving.check(opening(price_units=offered))
        assert refused.value.retry, "another node may be content with it"
        serving.check(opening(price_units=100))

    async def test_one_that_leaves_takes_nobody(self, make: Make, executor: Executor) -> None:
        serving = await prepared(make("llama"), executor)
        serving.standing = Standing.LEAVING
        with pytest.raises(Leaving):
            serving.check(opening())

    async def test_without_a_context_length_any_length_may_be_asked(self, make: Make, executor: Executor) -> None:
        serving = await prepared(make("bloom"), executor, context_length=None, cache_bytes=1 << 40)
        asked = opening(max_length=2**24)
        serving.check(asked)
        serving.admit(asked, CLIENT)
        with pytest.raises(OutOfCache):
            (await prepared(make("bloom"), executor, context_length=None)).admit(asked, CLIENT)

    async def test_a_place_is_as_the_session_was_opened(self, make: Make, executor: Executor) -> None:
        serving = await prepared(make("llama"), executor)
        asked = opening(
            first_block=1, batch=2, codec="bfloat16", priority=Priority.LOW, left_padding=(0, 3), max_length=60
        )
        place = serving.admit(asked, CLIENT)
        assert (place.first, place.end, place.codec, place.client) == (1, BLOCKS, "bfloat16", CLIENT)
        assert (place.priority, place.left_padding, place.closed) == (Priority.LOW, (0, 3), False)
        assert isinstance(place.cache, SlotRows)
        assert (place.cache.count, place.cache.slab.capacity) == (2, 64)

    async def test_an_id_is_given_once_until_it_is_free(self, make: Make, executor: Executor) -> None:
        serving = await prepared(make("llama"), executor)
        asked = opening()
        place = serving.admit(asked, CLIENT)
        with pytest.raises(Busy):
            serving.admit(asked, CLIENT)
        serving.free(asked, place)
        assert place.closed
        assert serving.budget.used_bytes == 0
        serving.admit(asked, CLIENT)

    async def test_sessions_that_run_one_by_one_have_caches_of_their_own(self, make: Make, executor: Executor) -> None:
        serving = await prepared(make("gpt_neo"), executor)
        places = [serving.admit(opening(), CLIENT) for _ in range(2)]
        assert all(isinstance(place.cache, BlockCache) for place in places)
        assert places[0].cache is not places[1].cache
        assert serving.budget.sessions == 2
        assert [place.kind for place in places] == [None, None]

    @pytest.mark.parametrize(
        ("kind", "changes", "keeps"),
        [
            ("llama", {}, True),
            ("mistral", {}, True),
            ("llama", {"batch": 2}, False),
            ("llama", {"left_padding": (1,)}, False),
            ("llama", {"left_padding": (0,)}, True),
            ("mamba", {}, False),
            ("lfm2_moe", {}, False),
            ("gpt_neo", {}, False),
        ],
    )
    async def test_prefixes_are_kept_where_they_can_be_told_apart(
        self, make: Make, executor: Executor, kind: str, changes: dict[str, Any], keeps: bool
    ) -> None:
        serving = await prepared(make(kind), executor)
        assert (serving.admit(opening(**changes), CLIENT).prefixes is serving.prefixes) == keeps

    async def test_nor_where_there_is_no_memory_for_them(self, make: Make, executor: Executor) -> None:
        serving = await prepared(make("llama"), executor, limits=Limits(prefix_cache_bytes=0))
        assert serving.admit(opening(), CLIENT).prefixes is None

    async def test_what_a_session_leaves_is_cleared_when_it_is_free(self, make: Make, executor: Executor) -> None:
        blocks = make("llama")
        serving = await prepared(blocks, executor)
        asked = opening()
        place, stays = serving.admit(asked, CLIENT), serving.admit(opening(), CLIENT)
        assert isinstance(place.cache, SlotRows)
        assert isinstance(stays.cache, SlotRows)
        for cached in (place.cache, stays.cache):
            blocks.run_together([(noise(blocks, 20), cached)], 0, BLOCKS)
        serving.free(asked, place)
        await executor.run(lambda: None)
        assert not any(keys.any() or values.any() for keys, values in place.cache.slab.row(0).values())
        assert all(keys.any() and values.any() for keys, values in stays.cache.slab.row(1).values())
