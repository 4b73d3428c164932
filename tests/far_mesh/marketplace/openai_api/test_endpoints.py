"""The openai client, unmodified, against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from discovery.protocol.errors import PeerUnavailable
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import CONTEXT, MODEL, STORY, MeshDouble
from tests.far_mesh.marketplace.house import House, User

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You tell stories."},
    {"role": "user", "content": [{"type": "text", "text": "Tell me"}, {"type": "text", "text": " one"}]},
]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def user(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """Somebody with an account, for the whole file."""
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('openai') / 'm.db'}"
    with House(loop, live, live.settings(database_url=url), MeshDouble()) as house:
        yield house.user()


@pytest.fixture
def client(user: User) -> openai.OpenAI:
    return openai.OpenAI(base_url=user.house.url + "/v1", api_key=user.token, max_retries=0)


def test_a_plain_completion(client: openai.OpenAI, user: User) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=20, temperature=0)
    assert answer.choices[0].message.content == "".join(STORY)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 12, 19)
    bill = (answer.model_extra or {})["far"]
    assert answer.id == f"chatcmpl-{bill['request_id']}"
    assert sum(node["paid_units"] for node in bill["nodes_used"]) + bill["fee_units"] == bill["cost_units"] > 0
    assert user.settled(bill["request_id"])["settlement"]["status"] == "released"


def test_a_streamed_completion(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=MESSAGES, max_completion_tokens=3, stream=True))
    first, *middle, last = chunks
    assert first.choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in middle] == list(STORY[:3])
    assert last.choices[0].finish_reason == "length"
    assert (last.model_extra or {})["far"]["cost_units"] > 0
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_with_usage_ends_with_it(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=3, stream=True, stream_options={"include_usage": True}
    )
    *_, last = list(stream)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (7, 3)


def test_the_wire_is_what_other_clients_expect(user: User) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "stream": True}
    answer = user.http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert events[-1] == "[DONE]"
    for event in map(json.loads, events[:-1]):
        assert event["object"] == "chat.completion.chunk"
        assert {"index", "delta", "finish_reason"} <= set(event["choices"][0])


def test_models_are_listed(client: openai.OpenAI) -> None:
    [model] = client.models.list()
    assert model.id == MODEL
    assert model.model_extra is not None
    assert model.model_extra["context_length"] == CONTEXT
    assert (model.model_extra["far"]["available"], model.model_extra["far"]["active_nodes"]) == (True, 3)
    assert client.models.retrieve(MODEL).model_extra == model.model_extra


def test_parameters_reach_the_mesh(open_house: OpenHouse) -> None:
    mesh = MeshDouble()
    user = open_house(mesh).user()
    client = openai.OpenAI(base_url=user.house.url + "/v1", api_key=user.token, max_retries=0)
    client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=4,
        temperature=0.3,
        top_p=0.5,
        seed=9,
        stop=["a", "b"],
        user="me",
        n=1,
    )
    client.chat.completions.create(model=MODEL, messages=MESSAGES)
    (_, options), (_, defaults) = mesh.asked
    assert (options.max_tokens, options.temperature, options.top_p, options.seed) == (4, 0.3, 0.5, 9)
    assert options.stop == ("a", "b")
    assert (defaults.temperature, defaults.top_p, defaults.seed, defaults.stop) == (1.0, 1.0, None, ())
    assert defaults.max_tokens == 64 - 7  # our default, or what the context has left


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("reasoning_effort", "high"),
        ("service_tier", "flex"),
        ("store", True),
        ("web_search_options", {}),
        ("something_new", 1),
    ],
)
def test_what_we_do_not_do_is_refused_by_name(client: openai.OpenAI, name: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=2, extra_body={name: value})
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", name)


@pytest.mark.parametrize(
    "neutral", [{"n": 1, "frequency_penalty": 0, "presence_penalty": 0.0}, {"logprobs": False}, {"tools": None}]
)
def test_what_asks_for_nothing_is_accepted(client: openai.OpenAI, neutral: dict[str, Any]) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=2, extra_body=neutral)
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model_not_found"),
        ({"max_tokens": 0}, openai.BadRequestError, "invalid_argument"),
        ({"max_tokens": 10**9}, openai.BadRequestError, "invalid_argument"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, openai.BadRequestError, "invalid_argument"),
        ({"messages": []}, openai.BadRequestError, "invalid_argument"),
        ({"messages": [{"role": "tool", "content": "x"}]}, openai.BadRequestError, "invalid_argument"),
        ({"messages": [{"role": "user"}]}, openai.BadRequestError, "invalid_argument"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            openai.BadRequestError,
            "unsupported_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]}]},
            openai.BadRequestError,
            "unsupported_parameter",
        ),
        ({"n": 5}, openai.BadRequestError, "invalid_argument"),
        ({"n": 0}, openai.BadRequestError, "invalid_argument"),
        ({"top_logprobs": 3}, openai.BadRequestError, "invalid_argument"),
        ({"logprobs": True, "top_logprobs": 21}, openai.BadRequestError, "invalid_argument"),
        ({"logit_bias": {"x": 1}}, openai.BadRequestError, "invalid_argument"),
        ({"logit_bias": {"5": 101}}, openai.BadRequestError, "invalid_argument"),
        ({"presence_penalty": 2.1}, openai.BadRequestError, "invalid_argument"),
        ({"response_format": {"type": "json_schema"}}, openai.BadRequestError, "invalid_argument"),
        ({"response_format": {"type": "grammar"}}, openai.BadRequestError, "invalid_argument"),
        ({"tools": [WEATHER]}, openai.BadRequestError, "invalid_argument"),
        ({"tool_choice": "required"}, openai.BadRequestError, "invalid_argument"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}},
            openai.BadRequestError,
            "invalid_argument",
        ),
        (
            {"tools": [WEATHER], "response_format": {"type": "json_object"}},
            openai.BadRequestError,
            "unsupported_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": "word " * 70}]},
            openai.BadRequestError,
            "context_length_exceeded",
        ),
        ({"stream_options": {"include_usage": True, "more": 1}}, openai.BadRequestError, "unsupported_parameter"),
    ],
)
def test_mistakes_are_the_clients_own_errors(
    client: openai.OpenAI, changes: dict[str, Any], error: type[openai.APIStatusError], code: str
) -> None:
    with pytest.raises(error) as caught:
        client.chat.completions.create(**({"model": MODEL, "messages": MESSAGES, "max_tokens": 2} | changes))  # type: ignore[call-overload]
    assert caught.value.code == code


def test_a_wrong_key_is_an_authentication_error(user: User) -> None:
    client = openai.OpenAI(base_url=user.house.url + "/v1", api_key="sk-nothing", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model=MODEL, messages=MESSAGES)


def test_a_stream_that_breaks_off_raises_and_costs_nothing(open_house: OpenHouse) -> None:
    user = open_house(MeshDouble(break_at=3, breaks_with=PeerUnavailable("gone"))).user()
    client = openai.OpenAI(base_url=user.house.url + "/v1", api_key=user.token, max_retries=0)
    said: list[str | None] = []
    with pytest.raises(openai.APIError, match="nothing is charged"):
        listen(client, said)
    assert said == ["", *STORY[:3]]
    assert user.balance()["available_units"] == 10**9


def listen(client: openai.OpenAI, said: list[str | None]) -> None:
    for chunk in client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=9, stream=True):
        said.append(chunk.choices[0].delta.content)
