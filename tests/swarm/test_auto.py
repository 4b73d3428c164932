"""A transformers model whose blocks are in other processes: generate() is transformers' own, and says the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, set_seed

from discovery.protocol.errors import FarError, InvalidArgument
from far_mesh import AutoDistributedModelForCausalLM
from tests.support.models import whole_model
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
