"""Blocks at the client: the same text, fewer blocks on the way, nothing lost when the text goes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from discovery.protocol.errors import InvalidArgument
from far_mesh.client import Mesh
from far_mesh.config import GenerationOptions, MeshConfig
from far_mesh.errors import NoRoute
from far_mesh.model.private import LocalBlocks
from far_node.blocks.cut import read_config
from far_node.errors import BadPosition
from tests.support.architectures import ARCHITECTURES, make_architecture
from tests.support.models import BLOCKS, greedy, make_model, whole_model, with_bundled_tokenizer
from tests.support.ring import FAST, Ring, a_ring, source_of

BY_NAME = {architecture.name: architecture for architecture in ARCHITECTURES}
KINDS = ("llama", "bloom", "gemma3", "mixtral", "lfm2")
REPEATING = [5, 17, 99, 3, 40, 77, 12] * 5
QUICK = MeshConfig(**(vars(FAST) | {"speculation": False}))


def local(path: Path, first: int, last: int) -> LocalBlocks:
    return LocalBlocks.load(str(path), read_config(source_of(path)), first, last)


class TestLocalBlocks:
    """What is loaded, and what a text remembers."""

    @pytest.mark.parametrize(("first", "last"), [(-1, 0), (0, -1), (6, 0), (0, 6), (3, 3), (100, 0)])
    def test_at_least_one_block_is_the_swarms(self, talker: Path, first: int, last: int) -> None:
        with pytest.raises(InvalidArgument, match="at least one is the swarm's"):
            local(talker, first, last)

    def test_only_those_asked_for_are_loaded(self, talker: Path) -> None:
        blocks = local(talker, 2, 1)
        assert blocks.counts == (2, 1)
        assert blocks.first is not None
        assert blocks.last is not None
        assert (blocks.first.first, blocks.first.end, blocks.last.first, blocks.last.end) == (0, 2, 5, 6)
        assert blocks.first.parameter_count() == 2 * blocks.last.parameter_count()
        assert local(talker, 0, 0).counts == (0, 0)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_text_can_go_back_where_nodes_can(self, tmp_path: Path, kind: str) -> None:
        blocks = local(make_architecture(tmp_path, BY_NAME[kind]), 3, 0)
        assert blocks.first is not None
        size = blocks.first.hidden_size
        hidden, other = torch.randn(2, 1, 24, size, generator=torch.Generator().manual_seed(0))
        expected = blocks.new_text(24).before(torch.cat((hidden[:, :11], other[:, 11:]), dim=1), 0)
        text = blocks.new_text(24)
        text.before(hidden[:, :20], 0)
        if kind == "lfm2":
            with pytest.raises(BadPosition, match="cannot go back"):
                text.before(other[:, 11:], 11)
            return
        torch.testing.assert_close(text.before(other[:, 11:], 11), expected[:, 11:], atol=1e-5, rtol=1e-4)

    def test_a_text_does_not_go_on_beyond_what_it_knows(self, talker: Path) -> None:
        text = local(talker, 1, 1).new_text(16)
        text.before(torch.randn(1, 4, 64), 0)
        with pytest.raises(BadPosition, match="only 4 have been computed"):
            text.before(torch.randn(1, 1, 64), 5)

    def test_rows_move_with_the_beams(self, talker: Path) -> None:
        blocks = local(talker, 2, 0)
        hidden, more = torch.randn(2, 5, 64), torch.randn(2, 1, 64)
        text = blocks.new_text(16, rows=2)
        text.before(hidden, 0)
        text.select_rows((1, 1))
        alone = blocks.new_text(16, rows=2)
        alone.before(hidden[[1, 1]], 0)
        torch.testing.assert_close(text.before(more, 5), alone.before(more, 5))


async def said(mesh: Mesh, prompt: list[int], options: GenerationOptions) -> list[int]:
    return [token.id async for token in mesh.generate(prompt, options)]


class TestMesh:
    """Through the whole client."""

    @pytest.mark.parametrize("ends", [(1, 1), (3, 0), (0, 2), (2, 3)])
    @pytest.mark.parametrize("prompt", [[5, 17, 99], REPEATING])
    async def test_the_text_is_the_same(
        self, ring: Ring, talker: Path, ends: tuple[int, int], prompt: list[int]
    ) -> None:
        first, last = ends
        async with await ring.mesh(local_blocks_first=first, local_blocks_last=last) as mesh:
            assert await said(mesh, prompt, GenerationOptions(max_tokens=40)) == greedy(whole_model(talker), prompt, 40)

    async def test_with_wrong_guesses_ahead_too(self, ring: Ring, talker: Path) -> None:
        prompt = REPEATING
        async with await ring.mesh(local_blocks_first=2, local_blocks_last=1) as mesh:
            generation = await mesh.open(prompt, GenerationOptions(max_tokens=120))
            tokens = [token.id async for token in generation]
            result = await generation.finish()
        assert tokens == greedy(whole_model(talker), prompt, 120)
        assert result.drafted > result.accepted, "nothing had to be rolled back"

    async def test_a_seed_says_the_same_with_and_without(self, ring: Ring) -> None:
        options = GenerationOptions(max_tokens=30, temperature=0.8, top_p=0.9, seed=3)
        texts = []
        for first in (0, 2):
            async with await ring.mesh(local_blocks_first=first, local_blocks_last=first) as mesh:
                texts.append(await said(mesh, REPEATING, options))
        assert texts[0] == texts[1]

    @pytest.mark.parametrize("kind", ["bloom", "gpt2", "gemma2", "mixtral"])
    async def test_the_text_is_the_same_in_other_architectures(self, tmp_path: Path, kind: str) -> None:
        path = make_model(tmp_path / kind, kind, vocab_size=2048)
        async with (
            a_ring(with_bundled_tokenizer(path), (0, 3), (3, 6)) as ring,
            await ring.mesh(local_blocks_first=1, local_blocks_last=2) as mesh,
        ):
            expected = greedy(whole_model(path), REPEATING, 30)
            assert await said(mesh, REPEATING, GenerationOptions(max_tokens=30)) == expected

    async def test_the_route_covers_the_rest_and_the_rest_is_what_is_owed(self, ring: Ring) -> None:
        async with await ring.mesh(QUICK, local_blocks_first=2, local_blocks_last=1) as mesh:
            assert mesh.block_count == BLOCKS - 3
            generation = await mesh.open([5, 17, 99], GenerationOptions(max_tokens=8))
            assert [hop.blocks for hop in generation.hops] == [(2, 4), (4, 5)]
            _ = [token async for token in generation]
            result = await generation.finish()
        assert result.expected_token_layers == 3 * (3 + 8 - 1)
        assert [done.token_layers for done in result.contributions] == [20, 10]

    async def test_nodes_of_the_private_blocks_are_not_needed(self, talker: Path) -> None:
        async with a_ring(talker, (1, 5)) as ring:
            with pytest.raises(NoRoute):
                async with await ring.mesh() as mesh:
                    await said(mesh, [5, 17], GenerationOptions(max_tokens=3))
            async with await ring.mesh(local_blocks_first=1, local_blocks_last=1) as mesh:
                expected = greedy(whole_model(talker), [5, 17], 3)
                assert await said(mesh, [5, 17], GenerationOptions(max_tokens=3)) == expected

    async def test_what_leaves_is_no_embedding_of_any_token(self, ring: Ring, talker: Path) -> None:
        table = whole_model(talker).get_input_embeddings().weight.detach()
        farthest = []
        for first in (0, 1):
            async with await ring.mesh(local_blocks_first=first) as mesh:
                leaving = await mesh._model.ends_for(8).embed([5, 17, 99], 0)
            farthest.append(float(torch.cdist(leaving[0], table).min(dim=1).values.max()))
        assert farthest[0] < 1e-3, "without them each token is looked up in the table"
        assert farthest[1] > 1.0
