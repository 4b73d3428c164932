"""The whole of it: real nodes with a real, random model behind the gateway, asked by the SDK."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from farlabs import FarLabsClient, verify_receipts

from far_mesh.client import Mesh
from tests.far_mesh.marketplace.doubles import MODEL
from tests.far_mesh.marketplace.house import House, User
from tests.support.models import BUNDLED_VOCABULARY, make_model, with_bundled_tokenizer
from tests.support.ring import a_ring


@pytest.fixture(scope="module")
def user(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Somebody with money, at a gateway in front of three nodes."""
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    directory = tmp_path_factory.mktemp("real")
    path = with_bundled_tokenizer(
        make_model(directory / "model", vocab_size=BUNDLED_VOCABULARY, max_position_embeddings=512)
    )
    settings = live.settings(database_url=f"sqlite+aiosqlite:///{directory / 'm.db'}", unsettled_limit_units=10**12)
    stack = AsyncExitStack()

    async def opened() -> Mesh:
        ring = await stack.enter_async_context(a_ring(path, (0, 2), (2, 4), (4, 6)))
        return await stack.enter_async_context(await ring.mesh())

    mesh = loop.do(opened())
    with House(loop, live, settings, mesh) as house:
        yield house.user(deposit=10**12)
    loop.do(stack.aclose())


def test_what_real_nodes_did_is_streamed_paid_and_proven(user: User) -> None:
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
        again = client.generate(MODEL, "Tell me of São Paulo and 東京", 20, 1.0, stream=False, seed=1).result()
        assert again.text == answer.text
        verified = verify_receipts(client.receipts(answer.request_id))
    assert verified.blocks == ((0, 6),)
    assert len(verified.receipts) == 3
    positions = answer.prompt_tokens + answer.completion_tokens - 1
    assert verified.token_layers == positions * 6
