"""The whole of it: real nodes with a real, random model behind the gateway, asked by the openai client.

A random model's tokens are pieces of bytes as often as not, so characters that span tokens come by themselves.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import openai
import pytest
from jsonschema import Draft202012Validator

from far_mesh.client import Mesh
from tests.far_mesh.marketplace.doubles import MODEL
from tests.far_mesh.marketplace.house import House, User
from tests.far_mesh.marketplace.openai_api.test_endpoints import WEATHER
from tests.far_mesh.marketplace.openai_api.test_parameters import far
from tests.far_mesh.model.test_tools import HERMES
from tests.support.models import BUNDLED_VOCABULARY, make_model, with_bundled_tokenizer
from tests.support.ring import a_ring

ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me of São Paulo and 東京"}]}
SEEDS = range(1, 4)


@pytest.fixture(scope="module")
def user(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    directory = tmp_path_factory.mktemp("real")
    path = with_bundled_tokenizer(
        make_model(directory / "model", vocab_size=BUNDLED_VOCABULARY, max_position_embeddings=512)
    )
    (path / "chat_template.jinja").write_text(HERMES)
    url = f"sqlite+aiosqlite:///{directory / 'm.db'}"
    settings = live.settings(database_url=url, unsettled_limit_units=10**12)
    stack = AsyncExitStack()

    async def opened() -> Mesh:
        ring = await stack.enter_async_context(a_ring(path, (0, 2), (2, 4), (4, 6)))
        return await stack.enter_async_context(await ring.mesh())

    mesh = loop.do(opened())
    with House(loop, live, settings, mesh) as house:
        yield house.user(deposit=10**12)
    loop.do(stack.aclose())


@pytest.fixture(scope="module")
def client(user: User) -> openai.OpenAI:
    return openai.OpenAI(base_url=user.house.url + "/v1", api_key=user.token, max_retries=0)


def streamed(client: openai.OpenAI, **changes: Any) -> list[str]:
    """The pieces of an answer."""
    chunks = client.chat.completions.create(**(ASK | changes), stream=True)
    return [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]


def plain(client: openai.OpenAI, **changes: Any) -> str:
    """An answer in one piece."""
    return client.chat.completions.create(**(ASK | changes)).choices[0].message.content or ""


def test_the_same_seed_gives_the_same_text_streamed_or_not(client: openai.OpenAI) -> None:
    texts = set()
    for seed in SEEDS:
        pieces = streamed(client, seed=seed, max_tokens=20)
        assert "".join(pieces) == plain(client, seed=seed, max_tokens=20)
        texts.add("".join(pieces))
    assert len(texts) == len(SEEDS)


def test_characters_that_span_tokens_come_whole(client: openai.OpenAI, user: User) -> None:
    mesh = user.house.mesh
    rabbit = "🐇"
    ids = mesh.encode(rabbit, raw=True)
    assert len(ids) >= 3
    # Each piece of the rabbit is forced in turn by a grammar that takes nothing else.
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [f"{rabbit}é{rabbit}"]}}}
    pieces = streamed(client, response_format=schema, max_tokens=40)
    assert json.loads("".join(pieces)) == f"{rabbit}é{rabbit}"
    assert not any("\ufffd" in piece for piece in pieces)
    for piece in pieces:
        piece.encode()
    # Cut off in the middle of one, several answers at once: each says what it would have said in one piece.
    cut: dict[str, Any] = {"response_format": schema, "max_tokens": len(ids) + 2, "n": 2}
    said = ["", ""]
    for chunk in client.chat.completions.create(**(ASK | cut), stream=True):
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
    answer = client.chat.completions.create(**(ASK | cut))
    assert said == [choice.message.content for choice in answer.choices]
    assert said[0].startswith(f'"{rabbit}')


def test_no_half_of_a_stop_word_is_ever_said(client: openai.OpenAI) -> None:
    for seed in SEEDS:
        text = plain(client, seed=seed, max_tokens=20)
        word = text[len(text) // 3 : len(text) // 3 + 4]
        pieces = streamed(client, seed=seed, max_tokens=20, stop=[word])
        assert "".join(pieces) == text.partition(word)[0]
        assert "".join(pieces) == plain(client, seed=seed, max_tokens=20, stop=word)


def test_several_answers_are_those_of_their_seeds_and_are_paid_once(client: openai.OpenAI, user: User) -> None:
    before = user.balance()["available_units"]
    answer = client.chat.completions.create(**ASK, max_tokens=5, n=3, seed=5)
    alone = [plain(client, max_tokens=5, seed=5 + place) for place in range(3)]
    assert [choice.message.content for choice in answer.choices] == alone
    bill = far(answer)
    assert sum(node["paid_units"] for node in bill["nodes_used"]) + bill["fee_units"] == bill["cost_units"] > 0
    assert len(bill["nodes_used"]) == 9  # three nodes, and a receipt for each answer
    assert answer.usage is not None
    prompt = answer.usage.prompt_tokens
    assert bill["held_units"] == prompt * 1_000 + 15 * 70_001
    assert user.balance()["available_units"] < before - bill["cost_units"]


def test_an_answer_keeps_to_its_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "size": {"enum": ["S", "M", "L"]}},
        "required": ["ok", "size"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "shirt", "schema": schema, "strict": True}}
    answer = client.chat.completions.create(**ASK, response_format=wanted, max_tokens=200, seed=1)
    assert answer.choices[0].finish_reason == "stop"
    Draft202012Validator(schema).validate(json.loads(answer.choices[0].message.content or ""))


def test_a_schema_that_cannot_be_kept_to_is_refused_by_name(client: openai.OpenAI, user: User) -> None:
    before = user.balance()
    schema: Any = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "integer", "minimum": 5, "maximum": 3}},
    }
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**ASK, response_format=schema)
    assert caught.value.param == "response_format"
    assert user.balance() == before


def test_a_tool_that_must_be_called_is_called(client: openai.OpenAI) -> None:
    tool = json.loads(json.dumps(WEATHER))
    tool["function"]["parameters"] = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "東京"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", named):
        answer = client.chat.completions.create(**ASK, tools=[tool], tool_choice=choice, max_tokens=250, seed=2)
        assert answer.choices[0].finish_reason == "tool_calls"
        (call,) = answer.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert json.loads(call.function.arguments)["city"] in ("Paris", "東京")


def test_log_probabilities_are_the_models_own(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**ASK, max_tokens=5, temperature=0, logprobs=True, top_logprobs=2)
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert len(told.content) == 5
    for one in told.content:
        assert one.logprob == one.top_logprobs[0].logprob >= one.top_logprobs[1].logprob
    said = b"".join(bytes(one.bytes or []) for one in told.content)
    assert said.decode(errors="replace") == answer.choices[0].message.content


def test_vectors_of_texts_are_one_long_and_paid(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input=["Hello", "東京", "Hello"])
    first, other, again = (one.embedding for one in answer.data)
    # computed in one pass or in two, as it happens: the last bits of a float are not the same
    assert first == pytest.approx(again, abs=1e-4)
    assert first != pytest.approx(other, abs=1e-2)
    assert sum(number * number for number in first) == pytest.approx(1.0, abs=1e-4)
    assert far(answer)["cost_units"] > 0


def test_token_ids_go_on_like_their_text(client: openai.OpenAI, user: User) -> None:
    ids = user.house.mesh.encode("Once upon a time", raw=True)
    by_text = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=6, seed=3)
    by_ids = client.completions.create(model=MODEL, prompt=ids, max_tokens=6, seed=3, echo=True)
    assert by_ids.choices[0].text == user.house.mesh.decode(ids) + by_text.choices[0].text


async def test_many_at_once(user: User) -> None:
    asks = [user.token] * 6
    async with openai.AsyncOpenAI(base_url=user.house.url + "/v1", api_key=user.token, max_retries=0) as client:
        answers = await asyncio.gather(
            *(client.chat.completions.create(**ASK, max_tokens=6, seed=4, n=2) for _ in asks)
        )
    assert len({answer.choices[1].message.content for answer in answers}) == 1
