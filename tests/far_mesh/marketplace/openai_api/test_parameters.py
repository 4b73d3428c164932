"""What parameters of ``/v1/chat/completions`` do, seen by the openai client and by the mesh."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import NOT_GIVEN
from pydantic import BaseModel

from discovery.protocol.errors import InvalidArgument
from far_mesh.config import Grammar
from far_mesh.model.tools import FORMATS
from tests.far_mesh.marketplace.doubles import MODEL, STORY, MeshDouble
from tests.far_mesh.marketplace.house import House, User
from tests.far_mesh.marketplace.openai_api.test_endpoints import WEATHER

ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me one"}]}
HERMES = FORMATS[0]
CALLED = ("I", " look", ".", '<tool_call>{"name": "get_weather", "argu', 'ments": {"city": "Par', 'is"}}</tool_call>')
TWICE = (*CALLED, '<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>')


@pytest.fixture(scope="module")
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    live, loop = request.getfixturevalue("live_chain"), request.getfixturevalue("loop_thread")
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('parameters') / 'm.db'}"
    settings = live.settings(database_url=url, unsettled_limit_units=10**12)
    with House(loop, live, settings, MeshDouble()) as house:
        yield house


@pytest.fixture(scope="module")
def user(house: House) -> User:
    return house.user()


@pytest.fixture
def mesh(house: House) -> Iterator[MeshDouble]:
    """The house's mesh, which afterwards is as it was."""
    mesh = house.mesh
    assert isinstance(mesh, MeshDouble)
    before = {name: getattr(mesh, name) for name in ("story", "tool_format", "tool_marks", "refuse_options")}
    mesh.asked.clear()
    yield mesh
    for name, value in before.items():
        setattr(mesh, name, value)


@pytest.fixture
def client(user: User) -> openai.OpenAI:
    return openai.OpenAI(base_url=user.house.url + "/v1", api_key=user.token, max_retries=0)


def far(answer: BaseModel) -> dict[str, Any]:
    found: dict[str, Any] = (answer.model_extra or {})["far"]
    return found


def test_every_way_to_choose_tokens_reaches_the_mesh(client: openai.OpenAI, mesh: MeshDouble) -> None:
    more = {"top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 2}
    client.chat.completions.create(
        **ASK,
        max_tokens=4,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"7": -100, "8": 2},
        extra_body=more,
    )
    ((_, options),) = mesh.asked
    assert (options.presence_penalty, options.frequency_penalty) == (0.5, -0.5)
    assert options.logit_bias == {7: -100, 8: 2}
    assert (options.top_k, options.min_p, options.repetition_penalty, options.min_tokens) == (40, 0.1, 1.1, 2)


def test_several_answers_share_a_prompt_and_a_hold(client: openai.OpenAI, mesh: MeshDouble, user: User) -> None:
    before = user.balance()["available_units"]
    answer = client.chat.completions.create(**ASK, max_tokens=5, n=3, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.message.content for choice in answer.choices} == {"".join(STORY[:5])}
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 15)
    assert [options.seed for _, options in mesh.asked] == [7, 8, 9]
    bill = far(answer)
    assert bill["held_units"] == 4 * 1_000 + 15 * 70_001
    assert sum(node["paid_units"] for node in bill["nodes_used"]) + bill["fee_units"] == bill["cost_units"]
    assert bill["refund_units"] == bill["held_units"] - bill["cost_units"]
    assert user.balance()["available_units"] == before - bill["cost_units"]


def test_several_answers_come_in_one_stream(client: openai.OpenAI) -> None:
    said: dict[int, str] = {0: "", 1: ""}
    reasons: dict[int, str] = {}
    last: Any = None
    options: Any = {"include_usage": True}
    for last in client.chat.completions.create(**ASK, max_tokens=5, n=2, stream=True, stream_options=options):
        for choice in last.choices:
            said[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert said == {0: "".join(STORY[:5]), 1: "".join(STORY[:5])}
    assert reasons == {0: "length", 1: "length"}
    assert last.usage.completion_tokens == 10


def test_a_mesh_that_breaks_in_one_of_several_answers_costs_nothing(client: openai.OpenAI, mesh: MeshDouble) -> None:
    mesh.break_at = 2
    try:
        with pytest.raises(openai.APIStatusError, match="nothing is charged"):
            client.chat.completions.create(**ASK, max_tokens=5, n=3)
    finally:
        mesh.break_at = None


def test_log_probabilities(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**ASK, max_tokens=2, logprobs=True, top_logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    first, second = logprobs.content
    assert (first.token, first.bytes, first.logprob) == ("Once", list(b"Once"), -0.5)
    assert [top.logprob for top in first.top_logprobs] == [-1.0, -2.0, -3.0]
    assert second.token == " upon"


def test_log_probabilities_in_a_stream(client: openai.OpenAI) -> None:
    told = []
    for chunk in client.chat.completions.create(**ASK, max_tokens=2, logprobs=True, stream=True):
        for choice in chunk.choices:
            if choice.logprobs is not None and choice.logprobs.content:
                told += [(one.token, one.top_logprobs) for one in choice.logprobs.content]
    assert told == [("Once", []), (" upon", [])]


class Person(BaseModel):
    """What is parsed."""

    name: str
    age: int


def test_answers_are_parsed_by_the_clients_own_helper(client: openai.OpenAI, mesh: MeshDouble) -> None:
    mesh.story = ('{"name": "Ada",', ' "age": 36}')
    answer = client.chat.completions.parse(**ASK, response_format=Person)
    assert answer.choices[0].message.parsed == Person(name="Ada", age=36)
    ((_, options),) = mesh.asked
    assert options.grammar is not None
    assert json.loads(options.grammar.text)["required"] == ["name", "age"]


def test_answers_can_be_any_json_object(client: openai.OpenAI, mesh: MeshDouble) -> None:
    client.chat.completions.create(**ASK, response_format={"type": "json_object"})
    client.chat.completions.create(**ASK, response_format={"type": "text"})
    assert [options.grammar for _, options in mesh.asked] == [Grammar.json_object(), None]


def test_a_schema_that_cannot_be_kept_to_is_refused_before_money_moves(
    client: openai.OpenAI, mesh: MeshDouble, user: User
) -> None:
    mesh.refuse_options = InvalidArgument("the grammar cannot be used: it is odd", param="grammar")
    before = user.balance()
    schema: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**ASK, response_format=schema)
    assert caught.value.param == "response_format"
    assert user.balance() == before


def test_calls_of_tools_are_read_back(client: openai.OpenAI, mesh: MeshDouble) -> None:
    mesh.story, mesh.tool_format, mesh.tool_marks = CALLED, HERMES, {"<tool_call>": 5}
    answer = client.chat.completions.create(**ASK, tools=[WEATHER])  # type: ignore[list-item]
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == ("I look.", "tool_calls")
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    told = mesh.told_tools[-1]
    assert told is not None
    assert [tool["function"]["name"] for tool in told] == ["get_weather"]
    ((_, options),) = mesh.asked
    assert options.shown_tokens == frozenset({5})
    assert options.grammar is None


def test_calls_of_tools_in_a_stream_are_those_of_a_plain_answer(client: openai.OpenAI, mesh: MeshDouble) -> None:
    mesh.story, mesh.tool_format = TWICE, HERMES
    with client.chat.completions.stream(**ASK, tools=[WEATHER]) as stream:  # type: ignore[list-item]
        for event in stream:
            assert event.type != "content.delta" or "<" not in event.delta
        message = stream.get_final_completion().choices[0].message
    assert message.content == "I look."
    calls = message.tool_calls or []
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Paris", "Rome"]
    assert len({call.id for call in calls}) == 2


@pytest.mark.parametrize(("parallel", "calls"), [(NOT_GIVEN, 2), (True, 2), (False, 1)])
def test_parallel_calls(client: openai.OpenAI, mesh: MeshDouble, parallel: Any, calls: int) -> None:
    mesh.story, mesh.tool_format = TWICE, HERMES
    answer = client.chat.completions.create(**ASK, tools=[WEATHER], parallel_tool_calls=parallel)  # type: ignore[list-item]
    assert len(answer.choices[0].message.tool_calls or []) == calls


@pytest.mark.parametrize(
    ("choice", "is_told", "is_forced"),
    [
        ("none", False, False),
        ("auto", True, False),
        ("required", True, True),
        ({"type": "function", "function": {"name": "get_weather"}}, True, True),
    ],
)
def test_tool_choice(client: openai.OpenAI, mesh: MeshDouble, choice: Any, is_told: bool, is_forced: bool) -> None:
    mesh.tool_format = HERMES
    client.chat.completions.create(**ASK, tools=[WEATHER], tool_choice=choice)  # type: ignore[list-item]
    ((_, options),) = mesh.asked
    assert (mesh.told_tools[-1] is not None) is is_told
    assert (options.grammar is not None) is is_forced


def test_the_results_of_tools_go_back_to_the_model(client: openai.OpenAI, mesh: MeshDouble) -> None:
    mesh.tool_format = HERMES
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Weather?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])  # type: ignore[list-item]
    assert mesh.prompts[-1] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?", "name": "ann"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "content": "x"},
        {"role": "user", "content": "x", "tool_call_id": "y"},
        {"role": "assistant"},
        {"role": "user", "content": "x", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "user", "content": [{"type": "text"}]},
        {"role": "user", "content": [{"type": "text", "text": "x", "more": 1}]},
    ],
)
def test_messages_that_mean_nothing_are_refused_by_name(client: openai.OpenAI, message: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[message])  # type: ignore[list-item]
    assert (caught.value.param or "").startswith("messages.0")


def test_what_is_said_about_oneself_changes_nothing(client: openai.OpenAI) -> None:
    client.chat.completions.create(
        **ASK, max_tokens=1, user="me", metadata={"a": "b"}, store=False, safety_identifier="x", prompt_cache_key="y"
    )


def test_headers_tell_the_request_and_its_cost(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**ASK, max_tokens=2)
    bill = far(raw.parse())
    assert raw.headers["x-request-id"] == raw.headers["x-far-request-id"] == bill["request_id"]
    assert int(raw.headers["x-far-cost-units"]) == bill["cost_units"]
    assert raw.headers["openai-processing-ms"].isdecimal()


def test_a_body_that_is_no_json_is_an_unsupported_media_type(user: User) -> None:
    answer = user.http.post("/v1/chat/completions", content="model=tiny", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
    answer = user.http.post("/v1/chat/completions", content="{", headers={"content-type": "application/json"})
    assert answer.status_code == 400
