"""What every door takes: whatever is sent becomes options that can be kept to, or an error that names the parameter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from discovery.protocol.errors import FarError, InvalidArgument
from far_mesh.config import GenerationOptions
from far_mesh.marketplace.http import from_validation
from far_mesh.marketplace.inference.endpoints import wish_of as far_wish
from far_mesh.marketplace.inference.options import Choosing
from far_mesh.marketplace.inference.schemas import GenerateRequest
from far_mesh.marketplace.inference.service import Wish
from far_mesh.marketplace.openai_api.chat import wish_of as chat_wish
from far_mesh.marketplace.openai_api.completions import wish_of as completion_wish
from far_mesh.marketplace.openai_api.schemas import ChatRequest, CompletionRequest

DOORS: dict[str, tuple[type[BaseModel], Any, dict[str, Any]]] = {
    "generate": (GenerateRequest, far_wish, {"model_id": "m", "prompt": "p"}),
    "chat": (ChatRequest, chat_wish, {"model": "m", "messages": [{"role": "user", "content": "p"}]}),
    "completions": (CompletionRequest, completion_wish, {"model": "m", "prompt": "p"}),
}
SAID_OF = {"messages": ("messages", "prompt"), "payment": ("payment", "escrow_intent")}
MORE = ("functions", "suffix", "store", "service_tier", "temperatur")
TEXTS = st.text(max_size=20)
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, 1, -1, 2, 2**31, -(2**63), 10**400, 1e308, 0.5]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
LIKELY = st.one_of(
    NUMBERS,
    st.lists(TEXTS, max_size=18),
    st.dictionaries(st.integers(0, 10**6).map(str), st.floats(-200, 200), max_size=3),
    st.fixed_dictionaries({"type": st.sampled_from(["text", "json_object", "json_schema", "function"])}),
    st.sampled_from(["none", "auto", "required", "standard", "balance", "channel:"]),
    JSON,
)


def wish(door: str, changes: dict[str, Any]) -> Wish:
    """What a door makes of a body, as it does over HTTP."""
    shape, wish_of, body = DOORS[door]
    sent = body | changes
    try:
        asked: Wish = wish_of(shape.model_validate(sent))
    except ValidationError as error:
        raise from_validation(error.errors(), sent) from None
    asked.manner(8)
    return asked


def wish_or_error(door: str, changes: dict[str, Any]) -> Wish | FarError:
    try:
        return wish(door, changes)
    except FarError as error:
        return error


@pytest.mark.parametrize("door", sorted(DOORS))
@settings(max_examples=150)
@given(data=st.data())
def test_every_value_is_taken_or_refused_by_name(door: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*sorted(DOORS[door][0].model_fields), *MORE]))
    changes = {name: data.draw(LIKELY)}
    asked = wish_or_error(door, changes)
    if isinstance(asked, Wish):
        assert 1 <= asked.choices <= 128
        return
    assert asked.status in (400, 402)
    param = str(asked.facts.get("param"))
    assert asked.status == 402 or param.partition(".")[0] in SAID_OF.get(name, (name,)), (changes, asked)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(sorted(Choosing.model_fields)), LIKELY, min_size=2, max_size=5))
def test_all_doors_say_the_same_of_what_they_have_in_common(changes: dict[str, Any]) -> None:
    said = set()
    for door in DOORS:
        asked = wish_or_error(door, changes)
        if isinstance(asked, FarError):
            said.add((asked.code, asked.facts.get("param")))
        else:
            usual = {} if changes.get("temperature") is not None else {"temperature": 0.5}
            said.add(("", repr((asked.choices, {**vars(asked.manner(8)), **usual}))))
    assert len(said) == 1


@pytest.mark.parametrize("name", sorted(set(Choosing.model_fields) - {"n", "max_tokens", "stop", "logit_bias"}))
def test_the_document_has_the_ranges_that_are_kept(name: str) -> None:
    (number, _) = Choosing.model_json_schema()["properties"][name]["anyOf"]
    integer = number["type"] == "integer"
    step = 1 if integer else 1e-6
    edges: list[tuple[float, float]] = []
    for low, strict, sign in (("minimum", "exclusiveMinimum", -1), ("maximum", "exclusiveMaximum", 1)):
        if low in number:
            edges.append((number[low], number[low] + sign * step))
        elif strict in number:
            edges.append((number[strict] - sign * step, number[strict]))
        else:
            assert (name, low) == ("min_tokens", "maximum")
    for inside, outside in edges:
        within: dict[str, Any] = {name: inside}
        beyond: dict[str, Any] = {name: outside}
        assert Choosing.model_validate(within).manner(temperature=0)(8) == GenerationOptions(8, **within)
        with pytest.raises(InvalidArgument):
            GenerationOptions(8, **beyond)
        with pytest.raises(ValidationError):
            Choosing.model_validate(beyond)


def test_what_is_sent_may_be_null() -> None:
    for door, (shape, _, body) in DOORS.items():
        nothing = {name: None for name in shape.model_fields if name not in body and name not in ("stream", "raw")}
        assert wish(door, nothing).choices == 1
