"""A prompt becomes tokens: the text of plain transformers, and a clear error for everything else."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from discovery.protocol.errors import FarError, InvalidArgument
from discovery.protocol.messages import Message, Opened, Step
from far_mesh.client import Checkpoint, Generation, Mesh, Token, _Head, _Question
from far_mesh.config import GenerationOptions, Grammar, MeshConfig
from far_mesh.errors import ContextLengthExceeded, NoRoute, NotADraw
from far_mesh.session import Mended
from far_node.blocks.load import load_blocks
from far_node.blocks.run import Blocks
from far_node.blocks.wire import to_wire
from far_node.errors import ComputeFailed
from tests.far_mesh.conftest import SPANS
from tests.support.models import BUNDLED_VOCABULARY, greedy, whole_model
from tests.support.ring import FAST, Ring, a_ring, source_of

PROMPT = "Once upon a time there was a brave rabbit"


@pytest.fixture
async def mesh(ring: Ring) -> AsyncIterator[Mesh]:
    made = await ring.mesh()
    yield made
    await made.close()


async def tokens_of(mesh: Mesh, prompt: Any, options: GenerationOptions) -> list[Token]:
    return [token async for token in mesh.generate(prompt, options)]


class TestHead:
    """Texts whose answers wait while the head is busy share its next pass."""

    @pytest.fixture
    def head(self, mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> tuple[_Head, list[tuple[int, ...]]]:
        ends, shapes = mesh._model._ends, list[tuple[int, ...]]()
        whole = ends.logits

        def logits(hidden: Tensor, start: int) -> Tensor:
            shapes.append(tuple(hidden.shape[:2]))
            return whole(hidden, start)

        monkeypatch.setattr(ends, "logits", logits)
        return _Head(ends), shapes

    @staticmethod
    def questions(mesh: Mesh, *positions: int) -> list[_Question]:
        torch.manual_seed(0)
        size = mesh._model._ends.embed(torch.tensor([[1]]), 0).shape[-1]
        hidden = [torch.randn(1, count, size) for count in positions]
        return [_Question(partial(torch.clone, one), one.shape[1], 3 + 5 * n) for n, one in enumerate(hidden)]

    async def test_it_answers_all_that_have_as_many_positions_at_once(
        self, mesh: Mesh, head: tuple[_Head, list[tuple[int, ...]]]
    ) -> None:
        shared, shapes = head
        asked = self.questions(mesh, 1, 2, 1, 1, 2)
        expected = [mesh._model._ends.logits(one.read(), one.start) for one in asked]
        shapes.clear()
        for question in asked:
            shared.ask(question)
        for question, logits in zip(asked, expected, strict=True):
            torch.testing.assert_close(shared.answer(question), logits, atol=1e-5, rtol=1e-5)
        assert shapes == [(3, 1), (2, 2)]
        assert not shared._waiting

    async def test_who_remembers_its_text_is_answered_in_its_turn(
        self, mesh: Mesh, head: tuple[_Head, list[tuple[int, ...]]]
    ) -> None:
        shared, shapes = head
        first, private = self.questions(mesh, 1, 1)
        shared.ask(first)
        shared.answer(first)
        shared.answer(private)
        assert shapes == [(1, 1), (1, 1)]

    @pytest.mark.parametrize("broken_first", [True, False])
    async def test_what_fails_for_one_is_tried_again_for_the_others(
        self, mesh: Mesh, head: tuple[_Head, list[tuple[int, ...]]], broken_first: bool
    ) -> None:
        shared, _ = head
        broken, well = self.questions(mesh, 1, 1)

        def fail() -> Tensor:
            raise NotADraw("no numbers")

        broken.read = fail
        for question in (broken, well) if broken_first else (well, broken):
            shared.ask(question)
        if not broken_first:
            assert torch.isfinite(shared.answer(well)).all()
        with pytest.raises(NotADraw):
            shared.answer(broken)
        if broken_first:
            assert torch.isfinite(shared.answer(well)).all()


class TestGenerate:
    """The whole walk."""

    async def test_greedy_tokens_are_those_of_plain_transformers(self, mesh: Mesh, talker: Path) -> None:
        ids = mesh.encode(PROMPT)
        expected = greedy(whole_model(talker), ids, 40)
        tokens = await tokens_of(mesh, PROMPT, GenerationOptions(max_tokens=40))
        assert [token.id for token in tokens] == expected
        assert len(set(expected)) > 20, "a model that repeats itself shows nothing"

    async def test_the_pieces_of_text_are_the_text(self, mesh: Mesh) -> None:
        generation = await mesh.open(mesh.encode(PROMPT), GenerationOptions(max_tokens=60))
        pieces = [token.text async for token in generation]
        result = await generation.finish()
        assert result.text == "".join(pieces)
        assert result.text == mesh._model.tokens.decode(result.token_ids)

    async def test_ids_and_text_are_the_same_prompt(self, mesh: Mesh) -> None:
        options = GenerationOptions(max_tokens=10)
        assert await tokens_of(mesh, PROMPT, options) == await tokens_of(mesh, mesh.encode(PROMPT), options)

    async def test_the_result_tells_who_did_what_for_how_long(self, mesh: Mesh, ring: Ring) -> None:
        ids = mesh.encode(PROMPT)
        generation = await mesh.open(ids, GenerationOptions(max_tokens=12), price_units=9)
        assert [(hop.peer_id, hop.wallet, hop.blocks) for hop in generation.hops] == [
            (node.peer_id, node.announcement.wallet, node.announcement.blocks) for node in ring.nodes
        ]
        async for _ in generation:
            continue
        result = await generation.finish()
        wrong = result.drafted - result.accepted
        positions = len(ids) + 12 - 1 + wrong  # the last token is never sent round
        assert (result.prompt_tokens, result.completion_tokens) == (len(ids), 12)
        assert result.finish_reason == "length"
        assert result.rejected == ()
        assert [done.token_layers for done in result.contributions] == [
            positions * (end - first) for first, end in SPANS
        ]
        assert result.expected_token_layers == positions * 6
        assert {done.receipt.receipt.price_units for done in result.contributions} == {9}
        assert result.time_to_first_token is not None
        assert 0 < result.time_to_first_token <= result.seconds
        assert await generation.finish() is result

    async def test_generations_at_once_do_not_mix(self, mesh: Mesh, talker: Path) -> None:
        whole, prompts = whole_model(talker), [f"number {number} and so on" for number in range(5)]
        expected = [greedy(whole, mesh.encode(prompt), 15) for prompt in prompts]
        answers = await asyncio.gather(
            *(tokens_of(mesh, prompt, GenerationOptions(max_tokens=15)) for prompt in prompts)
        )
        assert [[token.id for token in answer] for answer in answers] == expected

    async def test_the_same_seed_gives_the_same_text_and_another_another(self, mesh: Mesh) -> None:
        async def text(seed: int) -> list[int]:
            options = GenerationOptions(max_tokens=20, temperature=1.0, top_p=0.9, seed=seed)
            return [token.id for token in await tokens_of(mesh, PROMPT, options)]

        assert await text(1) == await text(1)
        assert await text(1) != await text(2)

    async def test_text_ends_before_a_stop_string(self, mesh: Mesh) -> None:
        whole = "".join(token.text for token in await tokens_of(mesh, PROMPT, GenerationOptions(max_tokens=40)))
        stop = whole[20:23]
        generation = await mesh.open(mesh.encode(PROMPT), GenerationOptions(max_tokens=40, stop=(stop,)))
        pieces = [token.text async for token in generation]
        result = await generation.finish()
        assert "".join(pieces) == result.text == whole[: whole.index(stop)]
        assert result.finish_reason == "stop"
        assert result.completion_tokens < 40

    async def test_an_end_token_ends_the_text(self, mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
        all_ids = [token.id for token in await tokens_of(mesh, PROMPT, GenerationOptions(max_tokens=10))]
        monkeypatch.setattr(mesh._model.tokens, "end_ids", frozenset([all_ids[6]]))
        generation = await mesh.open(mesh.encode(PROMPT), GenerationOptions(max_tokens=10))
        ids = [token.id async for token in generation]
        assert ids == all_ids[: all_ids.index(all_ids[6]) + 1]
        assert (await generation.finish()).finish_reason == "stop"

    async def test_checkpoints_tell_what_is_verified_so_far(self, ring: Ring) -> None:
        mesh = await ring.mesh(replace(FAST, speculation=False))  # whose guesses would be counted, too
        told: list[Checkpoint] = []

        async def note(checkpoint: Checkpoint) -> None:
            told.append(checkpoint)

        ids = mesh.encode(PROMPT)
        generation = await mesh.open(ids, GenerationOptions(max_tokens=150), on_checkpoint=note)
        async for _ in generation:
            continue
        result = await generation.finish()
        assert len(told) == (len(ids) + 149) // 64
        for checkpoint in told:
            done = sum(contribution.token_layers for contribution in checkpoint.contributions)
            assert done == checkpoint.expected_token_layers
            assert done % (64 * 6) == 0
        amounts = [checkpoint.expected_token_layers for checkpoint in told]
        assert amounts == sorted(set(amounts))
        assert amounts[-1] < result.expected_token_layers
        await mesh.close()


class TestLogprobs:
    """What the model itself thinks of its tokens."""

    async def test_they_are_those_of_plain_transformers(self, mesh: Mesh, talker: Path) -> None:
        options = GenerationOptions(max_tokens=25, temperature=0.8, top_k=20, seed=2, logit_bias={5: -100}, logprobs=5)
        prompt, whole = mesh.encode(PROMPT), whole_model(talker)
        tokens = await tokens_of(mesh, prompt, options)
        ids = torch.tensor([prompt + [token.id for token in tokens]])
        with torch.inference_mode():
            expected = torch.log_softmax(whole(ids).logits[0], dim=-1)[len(prompt) - 1 : -1]
        for row, token in zip(expected, tokens, strict=True):
            assert token.logprob is not None
            assert (token.logprob.id, token.logprob.bytes) == (token.id, mesh._model.tokens.bytes_of(token.id))
            assert token.logprob.logprob == pytest.approx(float(row[token.id]), abs=1e-4)
            values, best = row.topk(5)
            assert [one.id for one in token.top] == best.tolist()
            assert [one.logprob for one in token.top] == pytest.approx(values.tolist(), abs=1e-4)

    async def test_the_bytes_of_the_tokens_are_those_of_the_text(self, mesh: Mesh) -> None:
        """Also of tokens that are a part of a character, which only together are text."""
        options = GenerationOptions(max_tokens=60, grammar=Grammar.regex("日本語 é 👩‍👩‍👧‍👦 done"), logprobs=0)
        tokens = await tokens_of(mesh, mesh.encode(PROMPT), options)
        told = b"".join(token.logprob.bytes for token in tokens if token.logprob is not None)
        assert told.decode() == "".join(token.text for token in tokens) == "日本語 é 👩‍👩‍👧‍👦 done"
        assert all(token.top == () for token in tokens)
        assert any(not token.text for token in tokens), "some are a part of a character"

    async def test_offsets_are_places_in_the_text(self, mesh: Mesh) -> None:
        grammar = Grammar.regex("(the rabbit |日本語|é|👩‍👩‍👧‍👦|[a-z]{3}){9,20}")
        options = GenerationOptions(max_tokens=60, temperature=1.0, seed=4, stop=("rabbit 👩‍",), grammar=grammar)
        tokens = await tokens_of(mesh, mesh.encode(PROMPT), options)
        text = "".join(token.text for token in tokens)
        offsets = [token.offset for token in tokens]
        assert offsets[0] == 0
        assert offsets == sorted(offsets)
        for token in tokens:
            alone = mesh._model.tokens.decode([token.id])
            if "\ufffd" not in alone:
                assert text[token.offset :].startswith(alone[: len(text) - token.offset])

    async def test_without_them_nothing_is_told(self, mesh: Mesh) -> None:
        (token,) = await tokens_of(mesh, mesh.encode(PROMPT), GenerationOptions(max_tokens=1))
        assert (token.logprob, token.top) == (None, ())


class TestOptions:
    """What can only be checked where the model is known."""

    @pytest.mark.parametrize(
        ("param", "wish"),
        [
            ("logit_bias", {"logit_bias": {2048: 1.0}}),
            ("logit_bias", {"logit_bias": {-1: 1.0}}),
            ("stop_token_ids", {"stop_token_ids": frozenset([10**9])}),
            ("shown_tokens", {"shown_tokens": frozenset([2048])}),
            ("grammar", {"grammar": Grammar.regex("(")}),
            ("grammar", {"grammar": Grammar.json_schema({"not": {}})}),
        ],
    )
    async def test_what_the_model_does_not_have_is_refused_before_a_node_is_asked(
        self, ring: Ring, mesh: Mesh, param: str, wish: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidArgument) as failure:
            await mesh.open(mesh.encode(PROMPT), GenerationOptions(max_tokens=5, **wish))
        assert failure.value.facts["param"] == param
        assert not any(node.handler.open_sessions for node in ring.nodes)

    async def test_another_token_may_end_the_text(self, mesh: Mesh) -> None:
        said = await tokens_of(mesh, mesh.encode(PROMPT), GenerationOptions(max_tokens=20))
        end = said[7].id
        options = GenerationOptions(max_tokens=20, stop_token_ids=frozenset([end]))
        generation = await mesh.open(mesh.encode(PROMPT), options)
        ended = [token.id async for token in generation]
        result = await generation.finish()
        assert ended == [token.id for token in said][: [token.id for token in said].index(end) + 1]
        assert result.finish_reason == "stop"

    async def test_options_that_leave_no_token_end_the_answer_with_their_name(self, mesh: Mesh) -> None:
        every = dict.fromkeys(mesh.encode("a b c", raw=True), -100.0)
        options = GenerationOptions(max_tokens=9, grammar=Grammar.regex("a"), logit_bias=every)
        with pytest.raises(InvalidArgument) as failure:
            await tokens_of(mesh, mesh.encode(PROMPT), options)
        assert failure.value.facts["param"] == "logit_bias"


class TestReadersWhoLeave:
    """What is left behind when nobody reads on."""

    async def test_a_reader_who_stops_early_leaves_no_session_and_owes_what_was_done(
        self, mesh: Mesh, ring: Ring
    ) -> None:
        ids = mesh.encode(PROMPT)
        generation = await mesh.open(ids, GenerationOptions(max_tokens=100))
        async for _ in generation:
            if len(generation._progress.token_ids) == 5:
                break
        result = await generation.finish()
        assert (result.finish_reason, result.completion_tokens) == ("stopped", 5)
        assert result.rejected == ()
        assert sum(done.token_layers for done in result.contributions) == result.expected_token_layers
        for node in ring.nodes:
            await node.until_free()

    async def test_a_reader_cancelled_in_the_middle_of_a_step_does_not_tear_the_step(self, talker: Path) -> None:
        async with a_ring(talker, (0, 3)) as ring:
            gate = _Gate(
                load_blocks(source_of(talker), 3, 6), opens_for=4
            )  # the prefill of the measurement, the prompt, two tokens
            await ring.add(3, 6, blocks=gate)
            mesh = await ring.mesh()
            generation = await mesh.open(mesh.encode(PROMPT), GenerationOptions(max_tokens=200))
            reader = asyncio.create_task(_read(generation))
            async with asyncio.timeout(20):
                while not gate.reached.is_set():
                    await asyncio.sleep(0.001)
            for _ in range(20):
                await asyncio.sleep(0)  # the reader has nothing left to do but to wait for that step
            reader.cancel()
            assert isinstance((await asyncio.gather(reader, return_exceptions=True))[0], asyncio.CancelledError)
            gate.open.set()
            result = await generation.finish()
            assert result.rejected == ()
            assert sum(done.token_layers for done in result.contributions) == result.expected_token_layers
            for node in ring.nodes:
                await node.until_free()
            await mesh.close()

    async def test_a_node_lost_while_nobody_reads_is_no_error_of_the_loop(self, ring: Ring, mesh: Mesh) -> None:
        troubles: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        generation = await mesh.open(mesh.encode(PROMPT), GenerationOptions(max_tokens=100))
        await anext(aiter(generation))
        ring.network.cut(ring.nodes[1].transport.peer_id)
        await generation.finish()
        del generation
        gc.collect()
        assert troubles == []

    async def test_a_generation_that_was_never_read_can_be_finished(self, mesh: Mesh, ring: Ring) -> None:
        generation = await mesh.open(mesh.encode(PROMPT), GenerationOptions(max_tokens=5))
        result = await generation.finish()
        assert (result.text, result.completion_tokens, result.contributions) == ("", 0, ())
        for node in ring.nodes:
            await node.until_free()


class TestRefusals:
    """What cannot be asked, each by its own name, before any node is troubled."""

    @pytest.fixture(autouse=True)
    async def no_node_is_troubled(self, ring: Ring) -> AsyncIterator[None]:
        yield
        assert all(not node.transport.visits for node in ring.nodes)

    @pytest.mark.parametrize("count", [0, -1])
    def test_no_tokens_at_all(self, count: int) -> None:
        with pytest.raises(InvalidArgument, match="max_tokens must be at least 1") as failure:
            GenerationOptions(max_tokens=count)
        assert failure.value.facts["param"] == "max_tokens"

    @pytest.mark.parametrize(("count", "param"), [(257, "max_tokens"), (10**9, "max_tokens")])
    async def test_more_tokens_than_the_context_holds(self, mesh: Mesh, count: int, param: str) -> None:
        with pytest.raises(
            ContextLengthExceeded, match=f"{count} are asked for; the context of talker holds 256"
        ) as no:
            await mesh.open(mesh.encode(PROMPT), GenerationOptions(max_tokens=count))
        assert (no.value.code, no.value.status, no.value.facts["param"]) == ("context_length_exceeded", 400, param)

    async def test_a_prompt_longer_than_the_context(self, mesh: Mesh) -> None:
        with pytest.raises(ContextLengthExceeded, match="the prompt has 300 tokens") as failure:
            await mesh.open([5] * 300, GenerationOptions(max_tokens=1))
        assert failure.value.facts["param"] == "prompt"

    @pytest.mark.parametrize("prompt", ["", [], ()], ids=repr)
    async def test_an_empty_prompt(self, mesh: Mesh, prompt: Any) -> None:
        with pytest.raises(InvalidArgument, match="the prompt is empty"):
            await tokens_of(mesh, prompt, GenerationOptions(max_tokens=1))

    @pytest.mark.parametrize("ids", [[-1], [BUNDLED_VOCABULARY], [1, 2**40]], ids=repr)
    async def test_ids_that_are_no_words(self, mesh: Mesh, ids: list[int]) -> None:
        with pytest.raises(InvalidArgument, match="token ids lie from 0 to 2047"):
            await mesh.open(ids, GenerationOptions(max_tokens=1))

    async def test_messages_for_a_model_that_does_not_chat(self, mesh: Mesh) -> None:
        with pytest.raises(InvalidArgument, match="no chat template"):
            mesh.encode([{"role": "user", "content": "hello"}])


async def test_a_prompt_that_just_fits_is_served(mesh: Mesh) -> None:
    generation = await mesh.open([7] * 255, GenerationOptions(max_tokens=1))
    assert len([token async for token in generation]) == 1
    await generation.finish()


class TestOpening:
    """Finding a route, and another one when nodes refuse."""

    async def test_no_nodes_for_some_blocks_names_them(self, talker: Path) -> None:
        async with a_ring(talker, (0, 1), (4, 5)) as ring:
            mesh = await ring.mesh()
            with pytest.raises(NoRoute, match="no live node serves blocks 1:4, 5:6") as failure:
                await mesh.open([5], GenerationOptions(max_tokens=1))
            assert failure.value.facts["uncovered"] == [(1, 4), (5, 6)]
            assert (failure.value.status, failure.value.retry) == (503, True)
            await mesh.close()

    async def test_a_swarm_that_fills_while_one_asks_is_looked_at_again(self, talker: Path) -> None:
        async with a_ring(talker, (0, 4)) as ring:
            mesh = await ring.mesh(MeshConfig(open_attempts=2, view_age=60.0))
            with pytest.raises(NoRoute):
                await mesh.open([5], GenerationOptions(max_tokens=1))
            await ring.add(4, 6)
            assert len(await tokens_of(mesh, [5], GenerationOptions(max_tokens=2))) == 2
            await mesh.close()

    async def test_a_busy_node_is_left_out_where_another_can_do_its_work(self, talker: Path) -> None:
        async with a_ring(talker, (0, 3)) as ring:
            mesh = await ring.mesh()
            full = await ring.add(3, 6, name="full", max_sessions=1, issued_at=_later(), expires_at=_later(60))
            first = await mesh.open([5], GenerationOptions(max_tokens=1))
            assert first.hops[1].peer_id == full.peer_id
            spare = await ring.add(3, 6, name="spare")
            second = await mesh.open([5], GenerationOptions(max_tokens=1))
            assert second.hops[1].peer_id == spare.peer_id
            await asyncio.gather(first.finish(), second.finish())
            await mesh.close()

    async def test_when_all_are_busy_the_answer_is_busy_and_when_to_come_back(self, talker: Path) -> None:
        async with a_ring(talker, (0, 3)) as ring:
            await ring.add(3, 6, max_sessions=1)
            mesh = await ring.mesh()
            first = await mesh.open([5], GenerationOptions(max_tokens=1))
            with pytest.raises(FarError) as failure:
                await mesh.open([5], GenerationOptions(max_tokens=1))
            assert (failure.value.code, failure.value.status) == ("busy", 429)
            assert failure.value.retry_after is not None
            await first.finish()
            await mesh.close()

    async def test_a_node_that_is_announced_and_gone_is_left_out(self, talker: Path) -> None:
        async with a_ring(talker, (0, 3), (3, 6)) as ring:
            spare = await ring.add(3, 6, name="spare", issued_at=1, expires_at=2)
            ring.board.signed[spare.peer_id] = ring.board.signed.pop(spare.peer_id)
            mesh = await ring.mesh()
            ring.network.cut(ring.nodes[1].transport.peer_id)
            with pytest.raises(FarError) as failure:
                await mesh.open([5], GenerationOptions(max_tokens=1))
            assert failure.value.code == "peer_unavailable", "the spare one has expired"
            await ring.add(3, 6, name="another")
            generation = await mesh.open([5], GenerationOptions(max_tokens=1))
            assert generation.hops[1].peer_id == ring.nodes[-1].peer_id
            await generation.finish()
            await mesh.close()

    async def test_a_refusal_that_will_not_change_is_not_tried_again(self, ring: Ring) -> None:
        mesh = await ring.mesh()
        with pytest.raises(FarError) as failure:
            await mesh._opener.open(10_000)
        assert failure.value.code == "session_too_long"
        assert ring.board.reads == 1, "nobody looked for another route"
        await mesh.close()

    async def test_a_step_in_an_hour_is_no_step(self, ring: Ring) -> None:
        ring.corrupt(ring.nodes[2], lambda message: message if isinstance(message, Opened) else None)
        mesh = await ring.mesh(MeshConfig(step_timeout=0.2, close_timeout=0.2))
        with pytest.raises(FarError) as failure:
            await tokens_of(mesh, PROMPT, GenerationOptions(max_tokens=3))
        assert (failure.value.code, failure.value.retry) == ("deadline_exceeded", True)
        await mesh.close()


class _Gate(Blocks):
    """Blocks that stop before a certain call until they are let go. Takes over the blocks it is made of."""

    def __init__(self, honest: Blocks, opens_for: int) -> None:
        self.__dict__ = honest.__dict__
        self.left, self.reached, self.open = opens_for, threading.Event(), threading.Event()

    def _forward(self, *arguments: Any) -> Tensor:
        self.left -= 1
        if self.left < 0:
            self.reached.set()
            self.open.wait(20)
        return super()._forward(*arguments)


async def _read(generation: Generation) -> None:
    async for _ in generation:
        continue


class _Nonsense(Blocks):
    """Blocks that answer with one value. Takes over the blocks it is made of."""

    value: float

    def __init__(self, honest: Blocks, value: float) -> None:
        self.__dict__ = honest.__dict__
        self.value = value

    def _forward(self, *arguments: Any) -> Tensor:
        return torch.full_like(super()._forward(*arguments), self.value)


NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("value", NOT_FINITE)
async def test_a_node_whose_blocks_compute_nonsense_says_so_itself(talker: Path, value: float) -> None:
    async with a_ring(talker, (0, 3)) as ring:
        await ring.add(3, 6, blocks=_Nonsense(load_blocks(source_of(talker), 3, 6), value))
        mesh = await ring.mesh()
        with pytest.raises(ComputeFailed, match="not finite"):
            await tokens_of(mesh, PROMPT, GenerationOptions(max_tokens=5))
        for node in ring.nodes:
            await node.until_free()
        await mesh.close()


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_a_node_that_sends_nonsense_ends_the_text_with_an_error(
    talker: Path, value: float, temperature: float
) -> None:
    def nonsense(message: Message) -> Message:
        if not isinstance(message, Step):
            return message
        return replace(message, hidden=to_wire(torch.full(message.hidden.shape, value), "float32"))

    async with a_ring(talker, (0, 3), (3, 6)) as ring:
        ring.corrupt(ring.nodes[1], nonsense)
        mesh = await ring.mesh()
        with pytest.raises(NotADraw) as failure:
            await tokens_of(mesh, PROMPT, GenerationOptions(max_tokens=5, temperature=temperature))
        assert (failure.value.code, failure.value.retry) == ("invalid_logits", False)
        for node in ring.nodes:
            await node.until_free()
        await mesh.close()


async def test_a_node_lost_for_whom_there_is_no_other_is_a_retryable_error(ring: Ring, mesh: Mesh) -> None:
    told: list[Mended] = []
    generation: Generation = await mesh.open(
        mesh.encode(PROMPT), GenerationOptions(max_tokens=50), on_mended=told.append
    )
    stream = aiter(generation)
    for _ in range(4):
        await anext(stream)
    ring.network.cut(ring.nodes[1].transport.peer_id)
    with pytest.raises(FarError) as failure:
        await anext(stream)
    assert (failure.value.code, failure.value.retry, failure.value.status) == ("no_route", True, 503)
    assert told[0].waiting_for
    assert told[0].blocks == ring.nodes[1].announcement.blocks
    result = await generation.finish()
    assert result.completion_tokens == 4
    assert ring.nodes[1].peer_id not in {done.peer_id for done in result.contributions}


def _later(seconds: int = 30) -> int:
    return int(time.time()) + seconds
