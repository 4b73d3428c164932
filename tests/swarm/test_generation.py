"""Three processes that found each other through the DHT say, token for token, what one machine says."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
import torch

from discovery.dht.transport import Channel
from discovery.protocol.ids import PeerId
from discovery.protocol.messages import INFO_PROTOCOL, InfoRequest, NodeInfo, PeerAddress
from far_mesh.client import Mesh
from far_mesh.config import GenerationOptions
from far_mesh.opener import Swarm
from far_node.blocks.cut import find_stack
from far_node.blocks.source import find_model
from tests.support.models import greedy, whole_model
from tests.support.swarm import run_command
from tests.swarm.conftest import RealSwarm, Served

pytestmark = pytest.mark.swarm

PROMPTS = ("Tell me a story about a brave rabbit.", "What is the capital of France?", "7 + 5 =", "x")
TOKENS = 60


def path_of(model: str) -> Path:
    return find_model(model).path


class TestOutput:
    """The text."""

    async def test_greedy_output_is_that_of_plain_transformers(self, mesh: Mesh, served: Served) -> None:
        whole = whole_model(path_of(served.model))
        ends = mesh._model.tokens.end_ids
        distinct = set()
        for prompt in PROMPTS:
            ids = mesh.encode(prompt)
            expected = greedy(whole, ids, TOKENS)
            tokens = [token.id async for token in mesh.generate(ids, GenerationOptions(max_tokens=TOKENS))]
            assert tokens == expected
            assert len(tokens) == TOKENS or tokens[-1] in ends
            distinct |= set(tokens)
        assert len(distinct) > 40, "a model that repeats itself shows nothing"

    async def test_texts_at_the_same_time_are_the_texts_one_after_the_other(self, mesh: Mesh) -> None:
        async def text(prompt: str) -> list[int]:
            return [token.id async for token in mesh.generate(prompt, GenerationOptions(max_tokens=20))]

        assert await asyncio.gather(*map(text, PROMPTS)) == [await text(prompt) for prompt in PROMPTS]

    async def test_every_node_is_owed_for_what_it_did(self, mesh: Mesh, served: Served) -> None:
        ids = mesh.encode(PROMPTS[0])
        generation = await mesh.open(ids, GenerationOptions(max_tokens=70), price_units=3)
        async for _ in generation:
            continue
        result = await generation.finish()
        assert result.rejected == ()
        assert [done.peer_id for done in result.contributions] == [node.peer_id for node in served.nodes]
        assert [done.wallet for done in result.contributions] == [node.wallet for node in served.nodes]
        assert served.is_route(done.blocks for done in result.contributions)
        positions = len(ids) + result.completion_tokens - 1 + result.drafted - result.accepted
        for done in result.contributions:
            assert done.token_layers == positions * (done.blocks[1] - done.blocks[0])
        assert sum(done.token_layers for done in result.contributions) == result.expected_token_layers


class TestWhatNodesHold:
    """No node holds the whole model."""

    async def test_a_node_holds_the_parameters_of_its_blocks_and_no_others(
        self, visitor: Swarm, served: Served
    ) -> None:
        layers = find_stack(whole_model(path_of(served.model))).layers
        for node in served.nodes:
            first, end = node.ready["blocks"]
            info = await info_of(visitor, node.peer_id, tuple(node.ready["maddrs"]))
            assert (info.peer_id, info.first_block, info.end_block) == (node.peer_id, first, end)
            expected = sum(p.numel() for layer in layers[first:end] for p in layer.parameters())
            assert info.parameter_count == expected
            assert info.parameter_bytes < expected * 4 + 100_000, "and little beside them"

    async def test_nodes_that_are_done_hold_no_cache(self, visitor: Swarm, served: Served) -> None:
        async with asyncio.timeout(20):
            for node in served.nodes:
                while (await info_of(visitor, node.peer_id, tuple(node.ready["maddrs"]))).open_sessions:
                    await asyncio.sleep(0.05)
                assert (await info_of(visitor, node.peer_id, tuple(node.ready["maddrs"]))).cache_used_bytes == 0


async def info_of(visitor: Swarm, peer_id: str, maddrs: tuple[str, ...] = ()) -> NodeInfo:
    address = PeerAddress(PeerId(peer_id), tuple(maddr.rpartition("/p2p/")[0] for maddr in maddrs))
    channel = Channel(await visitor.peer.transport.open(address, INFO_PROTOCOL))
    await channel.send(InfoRequest())
    info = await channel.expect(NodeInfo)
    await channel.close()
    return info


class TestHostileStreams:
    """A real node on a real stream."""

    async def test_a_node_survives_garbage_and_serves_on(self, mesh: Mesh, visitor: Swarm, served: Served) -> None:
        node = served.nodes[0]
        _, reader, writer = await visitor.peer._p2p.call_binary_stream_handler(
            _hivemind_id(node.peer_id), "/far-mesh/session/1"
        )
        writer.write(b"\xff\xff\xff\xff" + b"garbage")
        assert len(await asyncio.wait_for(reader.read(), 20)) < 2000, "nothing but a short refusal, and the end"
        writer.close()
        for garbage in (b"", b"\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x1a\xff\xff\xff\xff\x0f"):
            for protocol in ("/far-mesh/session/1", "/far-mesh/link/1", "/far-mesh/info/1"):
                stream = await visitor.peer.transport.open(PeerAddress(PeerId(node.peer_id)), protocol)
                await stream.send(garbage)
                while await asyncio.wait_for(stream.receive(), 20) is not None:
                    continue
                await stream.close()
        tokens = [token async for token in mesh.generate("hello", GenerationOptions(max_tokens=3))]
        assert tokens


def _hivemind_id(peer_id: str) -> object:
    from hivemind.p2p import PeerID

    return PeerID.from_base58(peer_id)


class TestCommand:
    """``far-mesh generate``."""

    def test_it_streams_tokens_as_json_lines_and_ends_with_the_result(
        self, real_swarm: RealSwarm, served: Served
    ) -> None:
        expected = greedy(whole_model(path_of(served.model)), _ids(served.model, PROMPTS[0]), 12)
        ended = run_command(
            *("far_mesh.cli", "generate", "--json", "--model", served.model, "--prompt", PROMPTS[0]),
            *("--initial-peers", real_swarm.initial_peers[0], "--max-tokens", "12", "--threads", "1"),
        )
        assert (ended.status, ended.err) == (0, "")
        *tokens, done = ended.events
        assert [event["event"] for event in tokens] == ["token"] * 12
        assert [event["id"] for event in tokens] == expected == done["token_ids"]
        assert "".join(event["text"] for event in tokens) == done["text"]
        assert (done["event"], done["completion_tokens"]) == ("done", 12)
        assert served.is_route(node["blocks"] for node in done["nodes"])
        assert [node["peer_id"] for node in done["nodes"]] == [node.peer_id for node in served.nodes]
        assert done["seconds"] > 0
        assert done["prompt_tokens"] == len(_ids(served.model, PROMPTS[0]))

    def test_without_json_it_writes_the_text_and_who_served(self, real_swarm: RealSwarm) -> None:
        served = real_swarm.demo
        ended = run_command(
            *("far_mesh.cli", "generate", "--model", served.model, "--prompt", PROMPTS[0]),
            *("--initial-peers", real_swarm.initial_peers[0], "--max-tokens", "12", "--threads", "1"),
        )
        assert (ended.status, ended.err) == (0, "")
        assert "12 tokens" in ended.out
        told = re.findall(r"(\d+):(\d+)", ended.out.splitlines()[-1])
        assert served.is_route((int(first), int(end)) for first, end in told)
        with pytest.raises(json.JSONDecodeError):
            json.loads(ended.out)

    def test_an_answer_keeps_to_a_schema_and_tells_how_likely_its_tokens_are(
        self, real_swarm: RealSwarm, tmp_path: Path
    ) -> None:
        served = real_swarm.demo
        schema = tmp_path / "schema.json"
        schema.write_text('{"type": "array", "items": {"enum": ["fox", "bear"]}, "minItems": 1, "maxItems": 2}')
        ended = run_command(
            *("far_mesh.cli", "generate", "--json", "--model", served.model, "--prompt", PROMPTS[0]),
            *("--initial-peers", real_swarm.initial_peers[0], "--threads", "1", "--json-schema", str(schema)),
            *("--logprobs", "1", "--presence-penalty", "0.5", "--top-k", "30", "--temperature", "0.7", "--seed", "3"),
        )
        assert (ended.status, ended.err) == (0, "")
        *tokens, done = ended.events
        assert done["finish_reason"] == "stop"
        assert set(json.loads(done["text"])) <= {"fox", "bear"}
        assert all(event["logprob"] <= 0 and len(event["top"]) == 1 for event in tokens)


def _ids(model: str, prompt: str) -> list[int]:
    from far_mesh.model.tokens import Tokens
    from far_node.blocks.cut import read_config

    source = find_model(model)
    return Tokens.load(source, read_config(source)).encode(prompt)


def test_torch_computes_with_one_thread_here_as_there() -> None:
    """The machine is shared; so are the threads of these tests."""
    assert torch.get_num_threads() == 1
