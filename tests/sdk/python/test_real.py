"""The whole of it: real nodes with a real, random model behind the gateway, asked by the SDK."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from farlabs import FarLabsClient, verify_receipts

from far_mesh.client import Generation, Mesh, Token
from tests.far_mesh.marketplace.doubles import MODEL
from tests.far_mesh.marketplace.house import House, User
from tests.support.models import BUNDLED_VOCABULARY, make_model, with_bundled_tokenizer
from tests.support.ring import FAST, Ring, a_ring


@dataclass(frozen=True)
class Town:
    """Somebody with money, at a gateway in front of nodes: two of them serve the blocks in the middle."""

    user: User
    mesh: Mesh
    ring: Ring

    def lose_who_works_in_the_middle(self) -> None:
        """One of the two."""
        working = next(node for node in self.ring.nodes[1:3] if node.handler.open_sessions)
        self.ring.network.cut(working.transport.peer_id)


@pytest.fixture(scope="module")
def town(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """One for all tests here."""
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    directory = tmp_path_factory.mktemp("real")
    path = with_bundled_tokenizer(
        make_model(directory / "model", vocab_size=BUNDLED_VOCABULARY, max_position_embeddings=512)
    )
    settings = live.settings(database_url=f"sqlite+aiosqlite:///{directory / 'm.db'}", unsettled_limit_units=10**12)
    stack = AsyncExitStack()

    async def opened() -> tuple[Mesh, Ring]:
        ring = await stack.enter_async_context(a_ring(path))
        for blocks in ((0, 2), (2, 4), (2, 4), (4, 6)):
            await ring.add(*blocks, expires_at=int(time.time()) + 3600)  # nobody announces them again
        return await stack.enter_async_context(await ring.mesh(replace(FAST, mend_timeout=60.0))), ring

    mesh, ring = loop.do(opened())
    with House(loop, live, settings, mesh) as house:
        yield Town(house.user(deposit=10**12), mesh, ring)
    loop.do(stack.aclose())


async def interrupted(tokens: AsyncIterator[Token], act: Callable[[], None]) -> AsyncIterator[Token]:
    """The same tokens; at the fifth something happens."""
    count = 0
    async for token in tokens:
        count += 1
        if count == 5:
            act()
        yield token


def test_what_real_nodes_did_is_streamed_paid_and_proven(town: Town) -> None:
    user = town.user
    with FarLabsClient(user.house.url, private_key=user.key) as client:
        quote = client.quote(MODEL, "Tell me of São Paulo and 東京", 20)
        story = client.generate(
            MODEL, "Tell me of São Paulo and 東京", 20, 1.0, seed=1, logprobs=1, quote_id=quote.quote_id
        )
        tokens = list(story.events())
        answer = story.result()
        assert "".join(token.token for token in tokens) == answer.text != ""
        assert answer.logprobs is not None
        assert len(answer.logprobs) == answer.completion_tokens
        assert answer.cost_units <= quote.max_cost_units
        assert answer.mended == 0
        again = client.generate(MODEL, "Tell me of São Paulo and 東京", 20, 1.0, stream=False, seed=1).result()
        assert again.text == answer.text
        verified = verify_receipts(client.receipts(answer.request_id))
    assert verified.blocks == ((0, 6),)
    assert len(verified.receipts) == 3
    positions = answer.prompt_tokens + answer.completion_tokens - 1
    assert verified.token_layers == positions * 6


def test_an_answer_goes_on_when_a_node_is_lost_in_the_middle_and_says_so(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = town.mesh.open

    async def opened(*given: Any, **named: Any) -> Generation:
        generation = await open_(*given, **named)
        generation._stream = interrupted(aiter(generation), town.lose_who_works_in_the_middle)
        return generation

    with FarLabsClient(town.user.house.url, private_key=town.user.key) as client:
        whole = client.generate(MODEL, "Tell me of São Paulo", 10, 1.0, seed=1).result()
        monkeypatch.setattr(town.mesh, "open", opened)
        answer = client.generate(MODEL, "Tell me of São Paulo", 10, 1.0, seed=1).result()
        assert (answer.text, answer.completion_tokens, answer.mended) == (whole.text, whole.completion_tokens, 1)
        assert verify_receipts(client.receipts(answer.request_id)).blocks == ((0, 6),)
