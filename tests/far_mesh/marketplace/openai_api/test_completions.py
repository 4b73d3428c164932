"""Texts that go on, models by their ids, and vectors, by the openai client."""

from __future__ import annotations

import base64
import struct
from typing import Any

import openai
import pytest

from far_mesh.errors import NoRoute
from tests.far_mesh.marketplace.conftest import OpenHouse
from tests.far_mesh.marketplace.doubles import MODEL, STORY, MeshDouble
from tests.far_mesh.marketplace.house import User
from tests.far_mesh.marketplace.openai_api.test_parameters import client, far, house, mesh, user

__all__ = ["client", "house", "mesh", "user"]

TEXT = "".join(STORY)


def test_a_text_goes_on(client: openai.OpenAI, mesh: MeshDouble) -> None:
    answer = client.completions.create(model=MODEL, prompt="Tell me one", max_tokens=3, temperature=0)
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("".join(STORY[:3]), "length")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 3)  # and no chat template round it
    assert answer.id == f"cmpl-{far(answer)['request_id']}"


def test_without_a_limit_a_text_goes_on_for_sixteen_tokens(client: openai.OpenAI, mesh: MeshDouble) -> None:
    client.completions.create(model=MODEL, prompt="Tell me one")
    assert [options.max_tokens for _, options in mesh.asked] == [16]


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        (["a b", "c"], [(97, 98), (99,)]),
        ([5, 6, 7], [(5, 6, 7)]),
        ([[5, 6], [7]], [(5, 6), (7,)]),
    ],
)
def test_prompts_come_in_many_forms(client: openai.OpenAI, mesh: MeshDouble, prompt: Any, ids: Any) -> None:
    answer = client.completions.create(model=MODEL, prompt=prompt, max_tokens=2)
    assert [choice.index for choice in answer.choices] == list(range(len(ids)))
    assert {asked for asked, _ in mesh.asked} == set(ids)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(map(len, ids))


def test_several_texts_for_several_prompts_are_paid_by_one_hold(client: openai.OpenAI, mesh: MeshDouble) -> None:
    answer = client.completions.create(model=MODEL, prompt=["a b", "c d e"], n=2, max_tokens=4)
    assert [choice.text for choice in answer.choices] == ["".join(STORY[:4])] * 4
    assert sorted(asked for asked, _ in mesh.asked) == [(97, 98)] * 2 + [(99, 100, 101)] * 2
    bill = far(answer)
    assert bill["held_units"] == 5 * 1_000 + 16 * 70_001
    assert sum(node["paid_units"] for node in bill["nodes_used"]) + bill["fee_units"] == bill["cost_units"]


def test_what_was_said_is_repeated_where_that_is_wanted(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="Tell me", max_tokens=1, echo=True)
    assert answer.choices[0].text == "Tell meOnce"
    answer = client.completions.create(model=MODEL, prompt=[5, 6], max_tokens=1, echo=True)
    assert answer.choices[0].text == "<5> <6>Once"
    chunks = client.completions.create(model=MODEL, prompt="Tell me", max_tokens=2, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Tell meOnce upon"


def test_log_probabilities_of_a_text(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="Tell me", max_tokens=2, logprobs=1)
    told = answer.choices[0].logprobs
    assert told is not None
    assert (told.tokens, told.token_logprobs, told.text_offset) == (["Once", " upon"], [-0.5, -0.5], [0, 4])
    assert told.top_logprobs == [{"Once": -1.0}, {"Once": -1.0}]


def test_a_stream_of_texts(client: openai.OpenAI) -> None:
    said = {0: "", 1: ""}
    last: Any = None
    options: Any = {"include_usage": True}
    for last in client.completions.create(
        model=MODEL, prompt=["a", "b"], max_tokens=20, stream=True, stream_options=options
    ):
        for choice in last.choices:
            said[choice.index] += choice.text
    assert said == {0: TEXT, 1: TEXT}
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (2, 24)


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"suffix": "."}, "unsupported_parameter", "suffix"),
        ({"best_of": 2}, "unsupported_parameter", "best_of"),
        ({"echo": True, "logprobs": 1}, "unsupported_parameter", "echo"),
        ({"logprobs": 21}, "invalid_argument", "logprobs"),
        ({"prompt": ["a"] * 33}, "invalid_argument", None),
        ({"prompt": [""]}, "invalid_argument", None),
        ({"prompt": []}, "invalid_argument", None),
        ({"prompt": ["a", 5]}, "invalid_argument", None),
        ({"n": 5}, "invalid_argument", "n"),
        ({"messages": []}, "unsupported_parameter", "messages"),
    ],
)
def test_what_cannot_be_done_is_refused(
    client: openai.OpenAI, changes: dict[str, Any], code: str, param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{"model": MODEL, "prompt": "a", "extra_body": changes})  # type: ignore[call-overload]
    assert caught.value.code == code
    assert param is None or caught.value.param == param


# ---- models


def test_a_model_by_its_id(client: openai.OpenAI) -> None:
    assert client.models.retrieve(MODEL).id == MODEL
    for unknown in ("gpt-9", "meta/llama"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.models.retrieve(unknown)
        assert caught.value.code == "model_not_found"


# ---- vectors


def test_vectors(client: openai.OpenAI, user: User) -> None:
    before = user.balance()["available_units"]
    answer = client.embeddings.create(model=MODEL, input=["a b c", "d"], encoding_format="float")
    assert [one.embedding for one in answer.data] == [[3.0, 0.0], [1.0, 0.0]]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (4, 4)
    bill = far(answer)
    assert bill["held_units"] == 4 * 1_000
    assert sum(node["paid_units"] for node in bill["nodes_used"]) + bill["fee_units"] == bill["cost_units"] > 0
    assert user.balance()["available_units"] == before - bill["cost_units"]
    assert user.request(bill["request_id"])["status"] == "completed"


def test_vectors_in_base64_are_the_same(client: openai.OpenAI, user: User) -> None:
    body = {"model": MODEL, "input": [[5, 6], [7]], "encoding_format": "base64", "pooling": "last"}
    data = user.http.post("/v1/embeddings", json=body).json()["data"]
    assert [struct.unpack("<2f", base64.b64decode(one["embedding"])) for one in data] == [(2.0, 1.0), (1.0, 1.0)]
    answer = client.embeddings.create(model=MODEL, input=[5, 6])  # which asks for base64 by itself
    assert [one.embedding for one in answer.data] == [[2.0, 0.0]]


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"dimensions": 8}, "unsupported_parameter", "dimensions"),
        ({"input": ""}, "invalid_argument", None),
        ({"input": []}, "invalid_argument", None),
        ({"input": ["a"] * 257}, "invalid_argument", None),
        ({"input": "a " * 65}, "context_length_exceeded", "input"),
        ({"input": ["a", "a " * 65]}, "context_length_exceeded", "input.1"),
        ({"input": ["a", ""]}, "invalid_argument", "input.1"),
        ({"input": [[5], []]}, "invalid_argument", "input.1"),
        ({"encoding_format": "hex"}, "invalid_argument", "encoding_format"),
        ({"pooling": "max"}, "invalid_argument", "pooling"),
    ],
)
def test_what_has_no_vector_is_refused(
    client: openai.OpenAI, changes: dict[str, Any], code: str, param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(**({"model": MODEL, "input": "a", "extra_body": changes}))  # type: ignore[arg-type]
    assert caught.value.code == code
    assert param is None or caught.value.param == param


def test_vectors_that_nobody_can_make_cost_nothing(open_house: OpenHouse) -> None:
    user = open_house(MeshDouble(refuse_to_open=NoRoute("nobody serves it", retry_after=10.0))).user()
    answer = user.http.post("/v1/embeddings", json={"model": MODEL, "input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_route")
    assert answer.headers["retry-after"] == "10"
    assert user.balance()["available_units"] == 10**9


def test_work_on_vectors_that_nobody_proved_is_not_paid(open_house: OpenHouse) -> None:
    user = open_house(MeshDouble(unproven=("ann", "bob", "cid"))).user()
    bill = user.http.post("/v1/embeddings", json={"model": MODEL, "input": "a"}).json()["far"]
    assert (bill["cost_units"], bill["nodes_used"]) == (0, [])
    assert user.balance()["available_units"] == 10**9
