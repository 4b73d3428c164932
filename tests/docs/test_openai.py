"""The table of parameters is that of the shapes."""

from __future__ import annotations

import json
import re

import pytest
from pydantic import BaseModel

from far_mesh.marketplace.inference.schemas import GenerateRequest
from far_mesh.marketplace.openai_api.schemas import (
    ASKS_FOR_NOTHING,
    WITHOUT_EFFECT,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
)
from tests.docs.pages import ROOT, table

PAGE = ROOT / "docs/openai.md"
FACES: dict[str, type[BaseModel]] = {"chat": ChatRequest, "text": CompletionRequest, "far": GenerateRequest}


def rows(face: str, *beginnings: str) -> list[tuple[set[str], str]]:
    """The parameters of the rows that are about ``face`` and whose text begins like this, with the text."""
    found = []
    for names, at, text in table(PAGE, "| parameter | at | |"):
        if (at == "all" or face in at.split(", ")) and text.startswith(beginnings):
            found.append((set(re.findall(r"`(\w+)`", names)), text))
    return found


def names(face: str, *beginnings: str) -> set[str]:
    return set[str]().union(*(found for found, _ in rows(face, *beginnings)))


@pytest.mark.parametrize("face", sorted(FACES))
def test_every_parameter_is_in_the_table_and_nothing_else(face: str) -> None:
    assert names(face, "work") == set(FACES[face].model_fields)


def test_what_is_refused_or_changes_nothing_is_so() -> None:
    for face in ("chat", "text"):
        assert names(face, "accepted") == WITHOUT_EFFECT
        assert names(face, "refused but for") == set(ASKS_FOR_NOTHING)
        assert not names(face, "refused") & set(FACES[face].model_fields)


def test_what_may_be_sent_though_it_is_refused_is_named() -> None:
    told = " ".join(text for _, text in rows("chat", "refused but for"))
    for values in ASKS_FOR_NOTHING.values():
        for value in values:
            said = value if isinstance(value, str) else json.dumps(value)
            assert f"`{said}`" in told or (said in ("1", "") and "1 and an empty one" in told)


def test_the_parameters_of_vectors_are_named() -> None:
    (text,) = re.findall(r"`/v1/embeddings` takes (.*?)\n\n", PAGE.read_text(), re.DOTALL)
    taken = text.partition("`dimensions`")[0]
    assert set(re.findall(r"`(\w+)`", taken)) >= set(EmbeddingRequest.model_fields)
