"""Several answers, chats and tools through ``/api/inference`` and gRPC: what ``/v1`` takes, they take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from far_mesh.marketplace.grpc_api.far_pb2 import InferRequest
from far_mesh.marketplace.grpc_api.far_pb2_grpc import FarMeshStub
from far_mesh.model.tools import FORMATS
from tests.far_mesh.marketplace.doubles import MODEL, STORY, MeshDouble
from tests.far_mesh.marketplace.house import COMPLETION_PRICE, PROMPT_PRICE, House, User
from tests.far_mesh.marketplace.openai_api.test_endpoints import WEATHER
from tests.far_mesh.marketplace.test_http import error

TEXT = "".join(STORY)
CALLED = ("I", " look", ".", '<tool_call>{"name": "get_weather", "argu', 'ments": {"city": "Paris"}}</tool_call>')
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me"}]
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}}


@pytest.fixture(scope="module")
def user(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('choices') / 'm.db'}"
    settings = live.settings(database_url=url, unsettled_limit_units=10**12)
    with House(loop, live, settings, MeshDouble()) as house:
        yield house.user()


@pytest.fixture
def mesh(user: User) -> Iterator[MeshDouble]:
    """The house's mesh, which afterwards is as it was."""
    mesh = user.house.mesh
    assert isinstance(mesh, MeshDouble)
    mesh.asked.clear()
    yield mesh
    mesh.story, mesh.tool_format = STORY, None


@pytest.fixture(scope="module")
def stub(user: User) -> Iterator[FarMeshStub]:
    with grpc.insecure_channel(f"127.0.0.1:{user.house.open_grpc()}") as channel:
        yield FarMeshStub(channel)


def generate(user: User, **changes: Any) -> httpx.Response:
    body = {"model_id": MODEL, "prompt": "Tell me a story", "stream": False} | changes
    return user.http.post("/api/inference/distributed/generate", json=body)


def by(user: User) -> Any:
    return {"metadata": (("authorization", f"Bearer {user.token}"),)}


# ---- over HTTP


def test_several_answers_are_told_side_by_side(user: User, mesh: MeshDouble) -> None:
    answer = user.generate(n=3, seed=7, max_tokens=4).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert {choice["text"] for choice in answer["choices"]} == {answer["text"]} == {"".join(STORY[:4])}
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert [options.seed for _, options in mesh.asked] == [7, 8, 9]
    assert (answer["tokens_generated"], answer["held_units"]) == (12, 5 * PROMPT_PRICE + 12 * COMPLETION_PRICE)
    assert user.generate().json()["choices"] is None


def test_several_answers_come_in_one_stream(user: User) -> None:
    *tokens, done = user.events(n=2, max_tokens=5)
    said = ["".join(one["token"] for one in tokens if one["index"] == index) for index in (0, 1)]
    assert said == ["".join(STORY[:5])] * 2
    assert (done["finish_reasons"], done["completion_tokens"]) == (["length", "length"], 10)
    *tokens, done = user.events(max_tokens=2)
    assert all("index" not in one for one in tokens)
    assert "finish_reasons" not in done


def test_a_quote_knows_of_several_answers(user: User) -> None:
    wanted = {"model_id": MODEL, "messages": CHAT, "max_tokens": 6, "n": 3}
    quote = user.http.post("/api/inference/quote", json=wanted).json()
    answer = user.http.post(
        "/api/inference/distributed/generate", json=wanted | {"quote_id": quote["quote_id"], "stream": False}
    ).json()
    assert quote["n"] == 3
    assert quote["max_cost_units"] == answer["held_units"]
    many = user.http.post("/api/inference/quote", json=wanted | {"n": 99})
    assert error(many, 400, "invalid_argument")["param"] == "n"


def test_a_chat_goes_on(user: User, mesh: MeshDouble) -> None:
    assert generate(user, prompt=None, messages=CHAT).json()["text"] == TEXT
    assert mesh.prompts[-1] == CHAT


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_tools_are_read_back(user: User, mesh: MeshDouble, stream: bool) -> None:
    mesh.story, mesh.tool_format = CALLED, FORMATS[0]
    asked: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "auto"}
    if stream:
        *tokens, end = user.events(**asked)
        text = "".join(token["token"] for token in tokens)
        calls = [call for token in tokens for call in token.get("tool_calls", ())]
    else:
        end = user.generate(**asked).json()
        text, calls = end["text"], end["tool_calls"]
    assert (text, end["finish_reason"]) == ("I look.", "tool_calls")
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"city": "Paris"}]
    user.generate(tools=[WEATHER], tool_choice="required")
    assert mesh.asked[-1][1].grammar is not None


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"messages": CHAT}, "invalid_argument", "prompt"),
        ({"prompt": None}, "invalid_argument", "prompt"),
        ({"prompt": None, "messages": CHAT, "raw": True}, "invalid_argument", "messages"),
        ({"tools": [WEATHER], "raw": True}, "invalid_argument", "tools"),
        ({"tools": [WEATHER], "regex": "a+"}, "unsupported_parameter", "regex"),
        ({"tool_choice": "required"}, "invalid_argument", "tool_choice"),
        ({"prompt": None, "messages": [{"role": "user"}]}, "invalid_argument", "messages.0.content"),
        ({"prompt": None, "messages": [{"role": "king", "content": "x"}]}, "invalid_argument", "messages.0.role"),
        ({"n": 0}, "invalid_argument", "n"),
        ({"n": 5}, "invalid_argument", "n"),
        ({"n": "2"}, "invalid_argument", "n"),
        ({"n": True}, "invalid_argument", "n"),
        ({"max_tokens": "many"}, "invalid_argument", "max_tokens"),
        ({"temperature": 2.5}, "invalid_argument", "temperature"),
        ({"stop": ["a", 5]}, "invalid_argument", "stop.1"),
        ({"stop": [""]}, "invalid_argument", "stop.0"),
        ({"stop": ["a"] * 17}, "invalid_argument", "stop"),
        ({"logit_bias": {"7": "much"}}, "invalid_argument", "logit_bias.7"),
        ({"logprobs": 21}, "invalid_argument", "logprobs"),
        ({"best_of": 2}, "unsupported_parameter", "best_of"),
        ({"response_format": {"type": "xml"}}, "invalid_argument", "response_format.type"),
    ],
)
def test_what_means_nothing_is_named(user: User, changes: dict[str, Any], code: str, param: str) -> None:
    assert error(generate(user, **changes), 400, code)["param"] == param


# ---- over gRPC


def test_grpc_tells_several_answers(user: User, stub: FarMeshStub) -> None:
    asked = InferRequest(model_id=MODEL, prompt="Tell me", max_tokens=3, n=2, logprobs=1)
    answer = stub.Infer(asked, **by(user))
    assert [choice.text for choice in answer.choices] == [answer.text] * 2 == ["".join(STORY[:3])] * 2
    assert list(answer.bill.finish_reasons) == ["length", "length"]
    first = answer.logprobs[0]
    assert (first.token, bytes(first.bytes), first.logprob) == ("Once", b"Once", -0.5)
    assert [top.logprob for top in first.top_logprobs] == [-1.0]
    *events, last = stub.InferStream(asked, **by(user))
    for index in (0, 1):
        tokens = [event.token for event in events if event.token.index == index]
        assert "".join(token.token for token in tokens) == answer.text
        assert tokens[0].logprob.top_logprobs
    assert list(last.bill.finish_reasons) == ["length", "length"]


def test_grpc_takes_chats_and_tools(user: User, mesh: MeshDouble, stub: FarMeshStub) -> None:
    mesh.story, mesh.tool_format = CALLED, FORMATS[0]
    function = WEATHER["function"]
    asked = InferRequest(
        model_id=MODEL,
        messages=[
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}],
            },
            {"role": "tool", "content": "sunny", "tool_call_id": "c"},
        ],
        tools=[{"function": {"name": function["name"], "parameters": json.dumps(function["parameters"])}}],
        tool_choice="get_weather",
    )
    answer = stub.Infer(asked, **by(user))
    (call,) = answer.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert answer.bill.finish_reason == "tool_calls"
    assert mesh.told_tools[-1] == (WEATHER,)
    assert mesh.asked[-1][1].grammar is not None
    said: Any = mesh.prompts[-1]
    assert [one["role"] for one in said] == ["user", "assistant", "tool"]
    assert said[1]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    *events, last = stub.InferStream(asked, **by(user))
    assert [call.function.name for event in events for call in event.token.tool_calls] == ["get_weather"]
    assert last.bill.finish_reason == "tool_calls"


def test_grpc_keeps_to_a_schema_and_to_the_order_in_it(user: User, mesh: MeshDouble, stub: FarMeshStub) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": json.dumps(SCHEMA)}}
    stub.Infer(InferRequest(model_id=MODEL, prompt="p", response_format=form), **by(user))
    grammar = mesh.asked[-1][1].grammar
    assert grammar is not None
    assert list(json.loads(grammar.text)["properties"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": "{"}}}, "schema"),
        ({"tools": [{"function": {"name": "f", "parameters": "no"}}]}, "parameters"),
        ({"tools": [{"function": {"name": "f"}}], "tool_choice": "g"}, "'g'"),
        ({"n": 9}, "n must be"),
        ({"messages": [{"role": "user", "content": "x"}]}, "either prompt or messages"),
    ],
)
def test_grpc_names_what_means_nothing(user: User, stub: FarMeshStub, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Infer(InferRequest(**({"model_id": MODEL, "prompt": "p"} | changes)), **by(user))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert named in (caught.value.details() or "")
