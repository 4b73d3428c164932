"""A transformers model whose blocks are in other processes: generate() is transformers' own, and says the same."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, set_seed
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from discovery.protocol.errors import FarError, InvalidArgument
from far_mesh import AutoDistributedModelForCausalLM
from far_mesh.model.tokens import Tokens
from far_node.blocks.cut import read_config
from far_node.blocks.source import find_model
from tests.support.models import BUNDLED_VOCABULARY, make_model, whole_model, with_bundled_tokenizer
from tests.support.swarm import Process, Town, run_command
from tests.swarm.conftest import RealSwarm, Served
from tests.swarm.test_generation import path_of

pytestmark = pytest.mark.swarm


@pytest.fixture(params=["demo", "gpt2"], scope="module")
def served_once(request: pytest.FixtureRequest, real_swarm: RealSwarm) -> Served:
    chosen: Served = getattr(real_swarm, request.param)
    return chosen


@pytest.fixture(scope="module")
def whole(served_once: Served) -> PreTrainedModel:
    return whole_model(path_of(served_once.model))


@pytest.fixture(scope="module")
def distributed(real_swarm: RealSwarm, served_once: Served) -> Iterator[Any]:
    model = AutoDistributedModelForCausalLM.from_pretrained(served_once.model, initial_peers=real_swarm.initial_peers)
    yield model
    model.close()


def prompts(rows: int = 1, length: int = 8) -> torch.Tensor:
    return torch.randint(3, 2048, (rows, length), generator=torch.Generator().manual_seed(11))


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "top_p": 0.9, "temperature": 0.8},
    "beams": {"do_sample": False, "num_beams": 3},
    "beams that return": {"do_sample": False, "num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5},
    "sampled rows": {"do_sample": True, "num_return_sequences": 3},
    "processors": {"do_sample": False, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 20},
}


@pytest.mark.parametrize("way", WAYS)
def test_generate_says_what_the_whole_model_says(distributed: Any, whole: PreTrainedModel, way: str) -> None:
    options = {"max_new_tokens": 24, "pad_token_id": 0, **WAYS[way]}
    texts = []
    for model in (whole, distributed):
        set_seed(7)
        texts.append(model.generate(prompts(), **options))
    assert torch.equal(*texts), way
    assert texts[0].shape[1] > 10


def test_rows_padded_on_the_left_say_what_they_say_in_the_whole_model(distributed: Any, whole: PreTrainedModel) -> None:
    ids = prompts(rows=3, length=10)
    mask = torch.ones_like(ids)
    for row, padding in enumerate((0, 4, 7)):
        ids[row, :padding] = 0
        mask[row, :padding] = 0
    options = {"attention_mask": mask, "max_new_tokens": 16, "do_sample": False, "pad_token_id": 0}
    expected: Any = whole.generate(ids, **options)
    assert torch.equal(distributed.generate(ids, **options), expected)
    beams = {**options, "num_beams": 2}
    assert torch.equal(distributed.generate(ids, **beams), whole.generate(ids, **beams))


def test_a_plain_forward_gives_the_logits_of_the_whole_model(distributed: Any, whole: PreTrainedModel) -> None:
    ids = prompts(rows=2)
    with torch.inference_mode():
        torch.testing.assert_close(distributed(ids).logits, whole(ids).logits, atol=1e-3, rtol=1e-4)


def test_it_tells_who_served_in_route_order(distributed: Any, served_once: Served) -> None:
    distributed.generate(prompts(), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert distributed.get_last_contributing_servers() == [node.peer_id for node in served_once.nodes]
    contributions = distributed.get_last_contributions()
    assert served_once.is_route(done.blocks for done in contributions)
    assert {done.positions for done in contributions} == {8 + 3 - 1}


def test_rows_count_as_work(distributed: Any) -> None:
    distributed.generate(prompts(rows=2), max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=None)
    assert {done.positions for done in distributed.get_last_contributions()} == {2 * (8 + 3 - 1)}


def test_its_blocks_are_not_here(distributed: Any, whole: PreTrainedModel) -> None:
    from far_node.blocks.cut import find_stack

    blocks = sum(p.numel() for p in find_stack(whole).layers.parameters())
    here = sum(p.numel() for p in distributed.parameters())
    assert here == sum(p.numel() for p in whole.parameters()) - blocks


def test_a_session_goes_on_where_the_nodes_are(distributed: Any, whole: PreTrainedModel, served_once: Served) -> None:
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with distributed.inference_session(max_length=64) as session:
        first = distributed.generate(prompts(), **options)
        text = torch.cat((first, prompts(length=3)), dim=1)
        second = distributed.generate(text, **options)
        third = distributed.generate(session=session, **options)
    assert torch.equal(torch.cat((second, third), dim=1), whole.generate(text, **options | {"max_new_tokens": 12}))
    positions = 8 + 6 + 3 + 12 - 1
    assert {done.positions for done in distributed.get_last_contributions()} == {positions}
    assert distributed.get_last_contributing_servers() == [node.peer_id for node in served_once.nodes]


@pytest.mark.parametrize("way", ["greedy", "beams"])
def test_private_ends_say_the_same_and_leave_the_rest_to_nodes(
    real_swarm: RealSwarm, served_once: Served, whole: PreTrainedModel, way: str
) -> None:
    options = {"max_new_tokens": 16, "pad_token_id": 0, **WAYS[way]}
    model: Any = AutoDistributedModelForCausalLM.from_pretrained(
        served_once.model, initial_peers=real_swarm.initial_peers, local_blocks_first=1, local_blocks_last=1
    )
    try:
        assert torch.equal(model.generate(prompts(), **options), whole.generate(prompts(), **options))
        blocks = [done.blocks for done in model.get_last_contributions()]
    finally:
        model.close()
    assert (blocks[0][0], blocks[-1][1]) == (1, served_once.spans[-1][1] - 1)


def test_far_mesh_embed_gives_the_vectors_of_the_whole_model(
    real_swarm: RealSwarm, served_once: Served, whole: PreTrainedModel
) -> None:
    texts = ["Once upon a time", "The fox"]
    ended = run_command(
        *("far_mesh.cli", "embed", "--json", "--model", served_once.model, "--threads", "1", "--no-normalize"),
        *("--initial-peers", real_swarm.initial_peers[0]),
        *(word for text in texts for word in ("--text", text)),
    )
    assert (ended.status, ended.err) == (0, "")
    *vectors, done = ended.events
    positions = 0
    for index, (text, event) in enumerate(zip(texts, vectors, strict=True)):
        ids = raw_ids(served_once.model, text)
        positions += len(ids)
        with torch.inference_mode():
            states = whole(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
        assert event["index"] == index
        torch.testing.assert_close(torch.tensor(event["embedding"]), states.mean(dim=0), atol=1e-4, rtol=1e-4)
    assert (done["event"], done["prompt_tokens"]) == ("done", positions)
    assert done["token_layers"] == positions * served_once.spans[-1][1]


def raw_ids(model: str, text: str) -> list[int]:
    source = find_model(model)
    return Tokens.load(source, read_config(source)).encode(text, raw=True)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[tuple[Path, Town]]:
    """A town of its own, to be broken: the last blocks are on two nodes."""
    path = with_bundled_tokenizer(make_model(tmp_path / "tiny", vocab_size=BUNDLED_VOCABULARY, seed=2))
    with Town(tmp_path / "town") as town:
        town.start_nodes(path, (0, 3), (3, 6), (3, 6))
        yield path, town


class _KillTheLast(StoppingCriteria):  # type: ignore[misc]
    """Not a criterion: a node of the route dies after some tokens."""

    def __init__(self, model: Any, town: Town) -> None:
        self.model, self.town, self.killed = model, town, list[Process]()

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        if input_ids.shape[1] == 20 and not self.killed:
            victim = self.model._session.cache._remote._session.route[-1].node.peer_id
            self.killed = [node for node in self.town.nodes if node.peer_id == victim]
            self.killed[0].send(signal.SIGKILL)
        return torch.zeros(len(input_ids), dtype=torch.bool)


@pytest.mark.parametrize("local", [0, 1])
@pytest.mark.parametrize("way", ["greedy", "beams"])
def test_a_node_that_dies_in_the_middle_of_generate_is_replaced(town: tuple[Path, Town], local: int, way: str) -> None:
    path, broken = town
    options = {"max_new_tokens": 40, "pad_token_id": 0, "eos_token_id": None, **WAYS[way]}
    model: Any = AutoDistributedModelForCausalLM.from_pretrained(
        str(path), initial_peers=broken.initial_peers, local_blocks_first=local, local_blocks_last=local
    )
    try:
        killer = _KillTheLast(model, broken)
        said = model.generate(prompts(), stopping_criteria=StoppingCriteriaList([killer]), **options)
        contributions = model.get_last_contributions()
    finally:
        model.close()
    assert torch.equal(said, whole_model(path).generate(prompts(), **options))
    (victim,) = killer.killed
    assert victim.wait() != 0
    spare = next(done for done in contributions if done.blocks == (3, 6 - local) and done.peer_id != victim.peer_id)
    assert spare.positions > 0


def test_a_cache_of_ones_own_cannot_be_passed_in(distributed: Any) -> None:
    from transformers.cache_utils import DynamicCache

    with pytest.raises(InvalidArgument, match="past_key_values"):
        distributed.generate(prompts(), past_key_values=DynamicCache(), max_new_tokens=2)


def test_padding_on_the_right_is_refused(distributed: Any) -> None:
    mask = torch.ones(1, 8, dtype=torch.long)
    mask[0, -1] = 0
    with pytest.raises(InvalidArgument, match="pad on the left"):
        distributed.generate(prompts(), attention_mask=mask, max_new_tokens=2, pad_token_id=0)


def test_a_model_that_was_closed_says_so_and_can_be_closed_again(real_swarm: RealSwarm) -> None:
    model = AutoDistributedModelForCausalLM.from_pretrained("far-demo", initial_peers=real_swarm.initial_peers)
    model.close()
    model.close()
    with pytest.raises(InvalidArgument, match="has left the swarm"):
        model.generate(prompts(), max_new_tokens=2)


@pytest.mark.parametrize(
    ("peers", "code"),
    [([], "invalid_argument"), (["nonsense"], "invalid_argument"), (["/ip4/127.0.0.1/tcp/9"], "invalid_argument")],
)
def test_a_swarm_that_cannot_be_joined_is_a_clear_error(peers: list[str], code: str) -> None:
    with pytest.raises(FarError) as failure:
        AutoDistributedModelForCausalLM.from_pretrained("far-demo", initial_peers=peers)
    assert failure.value.code == code
