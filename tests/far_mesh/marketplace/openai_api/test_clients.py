"""Clients of other people, unmodified: openai with asyncio, LiteLLM, LangChain, curl, and the examples of the docs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from discovery.protocol.errors import PeerUnavailable
from far_mesh.errors import NoRoute
from tests.docs.pages import ROOT, Block, blocks
from tests.far_mesh.marketplace.doubles import MODEL, STORY, MeshDouble
from tests.far_mesh.marketplace.house import User
from tests.far_mesh.marketplace.openai_api.test_endpoints import WEATHER
from tests.far_mesh.marketplace.openai_api.test_parameters import CALLED, HERMES, house, mesh, user

__all__ = ["house", "mesh", "user"]

MESSAGES: list[Any] = [{"role": "user", "content": "Tell me one"}]
TEXT = "".join(STORY)
PAGE = ROOT / "docs/openai.md"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, user: User) -> None:
    monkeypatch.setenv("GATEWAY", user.house.url)
    monkeypatch.setenv("FAR_API_KEY", user.token)
    # Neither tells anybody of us while the tests run.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


class Person(BaseModel):
    """Somebody."""

    name: str
    age: int


# ---- openai with asyncio


async def test_openai_streams_with_asyncio(user: User) -> None:
    async with (
        openai.AsyncOpenAI(base_url=user.house.url + "/v1", api_key=user.token) as client,
        client.chat.completions.stream(model=MODEL, messages=MESSAGES, max_tokens=20) as stream,
    ):
        said = [event.delta async for event in stream if event.type == "content.delta"]
        whole = await stream.get_final_completion()
    assert "".join(said) == whole.choices[0].message.content == TEXT


def test_openai_asks_again_where_that_can_help(user: User, mesh: MeshDouble) -> None:
    mesh.refuse_to_open = NoRoute("nobody serves it", retry_after=0.1)
    try:
        client = openai.OpenAI(base_url=user.house.url + "/v1", api_key=user.token, max_retries=0)
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model=MODEL, messages=MESSAGES)
    finally:
        mesh.refuse_to_open = None
    assert (caught.value.status_code, caught.value.code) == (503, "no_route")
    assert caught.value.response.headers["retry-after"] == "1"
    assert caught.value.request_id is not None


# ---- LiteLLM


def ask_by_litellm(user: User, **changes: Any) -> Any:
    import litellm  # takes seconds

    usual = {"model": f"openai/{MODEL}", "messages": MESSAGES, "max_tokens": 20, "num_retries": 0}
    return litellm.completion(api_base=user.house.url + "/v1", api_key=user.token, **(usual | changes))


def test_litellm_asks_and_streams(user: User) -> None:
    answer = ask_by_litellm(user)
    assert answer.choices[0].message.content == TEXT
    assert answer.usage.completion_tokens == len(STORY)
    chunks = ask_by_litellm(user, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT


async def test_litellm_with_asyncio_and_for_vectors(user: User) -> None:
    import litellm

    where: dict[str, Any] = {"api_base": user.house.url + "/v1", "api_key": user.token, "num_retries": 0}
    stream: Any = await litellm.acompletion(
        model=f"openai/{MODEL}", messages=MESSAGES, max_tokens=20, stream=True, **where
    )
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == TEXT
    made = litellm.embedding(model=f"openai/{MODEL}", input=["a b", "c"], encoding_format="float", **where)
    assert [one["embedding"] for one in made.data] == [[2.0, 0.0], [1.0, 0.0]]


def test_litellm_calls_tools(user: User, mesh: MeshDouble) -> None:
    mesh.story, mesh.tool_format = CALLED, HERMES
    (call,) = ask_by_litellm(user, tools=[WEATHER]).choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def test_litellm_knows_our_errors(user: User, mesh: MeshDouble) -> None:
    import litellm.exceptions

    with pytest.raises(litellm.exceptions.NotFoundError):
        ask_by_litellm(user, model="openai/gpt-9")
    with pytest.raises(litellm.exceptions.BadRequestError):
        ask_by_litellm(user, messages=[{"role": "user", "content": "word " * 70}])
    mesh.break_at, mesh.breaks_with = 3, PeerUnavailable("gone")
    try:
        with pytest.raises(litellm.exceptions.MidStreamFallbackError, match="nothing is charged"):
            list(ask_by_litellm(user, stream=True))
    finally:
        mesh.break_at = None


# ---- LangChain


@pytest.fixture
def chat(user: User) -> Any:
    from langchain_openai import ChatOpenAI  # takes seconds

    return ChatOpenAI(
        model=MODEL,
        base_url=user.house.url + "/v1",
        api_key=user.token,
        max_tokens=20,
        max_retries=0,
    )


def test_langchain_asks_and_streams(chat: Any) -> None:
    answer = chat.invoke("Tell me one")
    assert answer.content == TEXT
    assert answer.usage_metadata["output_tokens"] == len(STORY)
    assert "".join(chunk.content for chunk in chat.stream("Tell me one")) == TEXT


async def test_langchain_with_asyncio(chat: Any) -> None:
    assert "".join([chunk.content async for chunk in chat.astream("Tell me one")]) == TEXT


def test_langchain_calls_tools(chat: Any, mesh: MeshDouble) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage

    mesh.story, mesh.tool_format = CALLED, HERMES
    told = chat.bind_tools([WEATHER], tool_choice="any")
    asked = HumanMessage("What is the weather?")
    answer = told.invoke([asked])
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    told.invoke([asked, answer, ToolMessage("sunny", tool_call_id=call["id"])])
    said = mesh.prompts[-1]
    assert [message["role"] for message in said] == ["user", "assistant", "tool"]  # type: ignore[index]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_gets_what_keeps_to_a_schema(chat: Any, mesh: MeshDouble, method: str) -> None:
    ada = '{"name": "Ada", "age": 36}'
    mesh.tool_format = HERMES
    mesh.story = (
        [ada] if method == "json_schema" else [f'<tool_call>{{"name": "Person", "arguments": {ada}}}</tool_call>']
    )
    assert chat.with_structured_output(Person, method=method).invoke("Who?") == Person(name="Ada", age=36)
    assert mesh.asked[-1][1].grammar is not None


def test_langchain_gets_vectors(user: User) -> None:
    from langchain_openai import OpenAIEmbeddings

    where: dict[str, Any] = {"base_url": user.house.url + "/v1", "api_key": user.token}
    made = OpenAIEmbeddings(model=MODEL, check_embedding_ctx_length=False, **where)
    assert made.embed_documents(["a b", "c"]) == [[2.0, 0.0], [1.0, 0.0]]


# ---- what the documents show


def test_curl_as_the_documents_show_it() -> None:
    (example,) = (one for one in blocks(PAGE, "bash") if "curl" in one.text)
    bash = shutil.which("bash")
    assert bash is not None
    script = example.text.replace("far-demo", MODEL)
    said = subprocess.run([bash, "-c", script], capture_output=True, text=True, timeout=60, check=True, env=os.environ)
    assert json.loads(said.stdout)["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize("example", blocks(PAGE, "python"), ids=lambda one: one.text.split("import ")[2].split()[0])
def test_examples_of_the_documents_work(example: Block, capsys: pytest.CaptureFixture[str]) -> None:
    exec(example.text.replace("far-demo", MODEL), {})
    assert TEXT in capsys.readouterr().out
