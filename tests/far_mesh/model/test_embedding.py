"""Vectors of texts through the ring, against plain transformers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from discovery.protocol.errors import InvalidArgument
from far_mesh.client import Mesh
from far_mesh.errors import ContextLengthExceeded, NoRoute
from far_mesh.model.embedding import Pooling, pool
from tests.support.models import make_model, whole_model, with_bundled_tokenizer
from tests.support.ring import Ring, a_ring

TEXTS = ["Once upon a time", "The fox", "A brave rabbit lived in the forest, and it had a friend."]


@pytest.fixture
async def mesh(ring: Ring) -> AsyncIterator[Mesh]:
    async with await ring.mesh() as made:
        yield made


def expected(path: Path, ids: list[int], pooling: Pooling) -> Tensor:
    with torch.inference_mode():
        return pool(whole_model(path)(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0], pooling)


@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
@pytest.mark.parametrize("ends", [(0, 0), (2, 1)])
async def test_a_vector_is_the_pooled_last_hidden_states_of_transformers(
    ring: Ring, talker: Path, pooling: Pooling, ends: tuple[int, int]
) -> None:
    async with await ring.mesh(local_blocks_first=ends[0], local_blocks_last=ends[1]) as mesh:
        made = await mesh.embed(TEXTS, pooling=pooling, normalize=False)
        ids = [mesh.encode(text, raw=True) for text in TEXTS]
    vectors = torch.stack([expected(talker, one, pooling) for one in ids])
    torch.testing.assert_close(made.vectors, vectors, atol=1e-4, rtol=1e-4)
    assert made.prompt_tokens == sum(len(one) for one in ids)


@pytest.mark.parametrize("kind", ["gpt2", "bloom", "gemma2", "mixtral", "opt"])
async def test_in_other_architectures_too(tmp_path: Path, kind: str) -> None:
    path = with_bundled_tokenizer(make_model(tmp_path / kind, kind, vocab_size=2048))
    async with a_ring(path, (0, 3), (3, 6)) as ring, await ring.mesh() as mesh:
        made = await mesh.embed([[5, 17, 99, 3]], normalize=False)
        torch.testing.assert_close(made.vectors[0], expected(path, [5, 17, 99, 3], "mean"), atol=1e-4, rtol=1e-4)


async def test_vectors_are_one_long_unless_it_is_not_wanted(mesh: Mesh) -> None:
    long, raw = await mesh.embed(TEXTS), await mesh.embed(TEXTS, normalize=False)
    torch.testing.assert_close(long.vectors.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(long.vectors, raw.vectors / raw.vectors.norm(dim=-1, keepdim=True))


async def test_texts_are_independent_of_their_company_and_their_order(mesh: Mesh) -> None:
    together = await mesh.embed([*TEXTS, TEXTS[0]] * 3)
    for index, text in enumerate(TEXTS):
        alone = await mesh.embed([text])
        torch.testing.assert_close(together.vectors[index], alone.vectors[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.vectors[0], together.vectors[3], atol=1e-5, rtol=1e-4)


async def test_each_tokens_work_is_receipted_once(mesh: Mesh, ring: Ring) -> None:
    made = await mesh.embed(TEXTS)
    assert made.expected_token_layers == 6 * made.prompt_tokens
    assert sum(done.token_layers for done in made.contributions) == made.expected_token_layers
    assert len(made.contributions) == len(TEXTS) * len(ring.nodes)
    assert made.rejected == ()


async def test_ids_are_taken_as_they_are(mesh: Mesh) -> None:
    ids = mesh.encode(TEXTS[0], raw=True)
    torch.testing.assert_close((await mesh.embed([ids])).vectors, (await mesh.embed([TEXTS[0]])).vectors)


async def test_what_cannot_be_embedded_is_refused_before_a_session_is_opened(mesh: Mesh, ring: Ring) -> None:
    with pytest.raises(InvalidArgument, match="no text"):
        await mesh.embed([])
    with pytest.raises(InvalidArgument, match=r"text 1: .*empty") as refused:
        await mesh.embed(["fine", ""])
    assert refused.value.facts["param"] == "texts.1"
    with pytest.raises(InvalidArgument, match="'max' is not one of mean, last, cls"):
        await mesh.embed(TEXTS, pooling="max")  # type: ignore[arg-type]
    with pytest.raises(ContextLengthExceeded, match="text 2 has 257 tokens"):
        await mesh.embed(["fine", [5], [5] * 257])
    assert all(node.handler.open_sessions == 0 for node in ring.nodes)


async def test_texts_that_fail_are_named_and_leave_nothing_open(mesh: Mesh, ring: Ring) -> None:
    ring.board.signed.popitem()
    with pytest.raises(NoRoute, match="text 0: ") as failure:
        await mesh.embed(TEXTS * 4)
    assert list(failure.value.facts["texts"]) == list(range(4 * len(TEXTS)))
    assert failure.value.facts["uncovered"]
    for node in ring.nodes:
        await node.until_free()


async def test_one_text_that_fails_among_others_is_named(mesh: Mesh, ring: Ring) -> None:
    opened = mesh._opener.open

    async def open_for(positions: int, **options: Any) -> Any:
        if positions == 7:
            raise NoRoute("nobody serves it", uncovered=[(0, 1)])
        return await opened(positions, **options)

    mesh._opener.open = open_for  # type: ignore[assignment]
    with pytest.raises(NoRoute, match="text 2: nobody serves it") as failure:
        await mesh.embed([[5], [6], [7] * 7, [8]])
    assert {place: error.message for place, error in failure.value.facts["texts"].items()} == {2: "nobody serves it"}
    for node in ring.nodes:
        await node.until_free()
