"""From what is asked for to blocks that compute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from discovery.protocol.errors import FarError, InvalidArgument
from far_node.blocks.split import SplitBlocks
from far_node.capacity import GIB, Memory, room_on
from far_node.config import ModelOptions
from far_node.errors import DoesNotFit
from far_node.loading import Found, fetch, find, load, usual_kinds
from far_node.models.add import add
from far_node.models.errors import ModelInUse
from far_node.models.store import ModelStore


def unwatched(event: str, **facts: Any) -> None:
    pass


def room(spare: int) -> Any:
    return room_on(Memory("cpu", spare, GIB), reserve_bytes=0, cache_bytes=0)


def found(tiny: Path, **more: Any) -> Found:
    return find(ModelOptions(str(tiny), **more), "cpu")


@pytest.mark.parametrize(("device", "kinds"), [("cpu", ("int8",)), ("cuda:1", ("int8", "nf4")), ("mps", ("none",))])
def test_each_device_has_its_usual_kinds_of_weights(device: str, kinds: tuple[str, ...]) -> None:
    assert usual_kinds(device) == kinds


def test_what_is_asked_for_goes_before_what_is_usual(tiny: Path) -> None:
    assert list(found(tiny).sizes) == ["int8"]
    assert list(found(tiny, quantization="nf4").sizes) == ["nf4"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"blocks": (0, 7)}, "blocks 0:7 are not within this model's 0:6"),
        ({"num_blocks": 7}, "--num-blocks 7 is more than this model's 6"),
        ({"context_length": 257}, "--context-length 257 is more than this model's 256"),
        ({"cpu_offload": True}, "--cpu-offload is for nodes with a GPU"),
    ],
    ids=str,
)
def test_what_the_model_has_not_is_refused(tiny: Path, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        found(tiny, **wrong)


def test_what_is_planned_is_what_is_held(tiny: Path) -> None:
    model = found(tiny, quantization="none")
    plan = model.plan([room(sum(model.sizes["none"][:4]))])
    assert plan.candidates == ((0, 4), (1, 5), (2, 6))
    fetch(model, (1, 5), unwatched)
    blocks = load(model, plan, (1, 5), unwatched)
    assert (blocks.first, blocks.end) == (1, 5)
    assert blocks.parameter_bytes() == pytest.approx(model.bytes_of("none", (1, 5)), rel=0.01)


def test_more_than_there_is_room_for_is_refused(tiny: Path) -> None:
    model = found(tiny, quantization="none", num_blocks=5)
    with pytest.raises(DoesNotFit, match="5 blocks of this model"):
        model.plan([room(sum(model.sizes["none"][:4]))])


def test_blocks_that_do_not_fit_on_the_first_device_are_loaded_on_the_cpu(tiny: Path) -> None:
    model = found(tiny, quantization="none")
    rooms = [room(sum(model.sizes["none"][:2])), room(GIB)]
    plan = model.plan(rooms)
    assert replace(model, device="cuda:0").places(plan, (0, 6)) == [("cuda:0", (0, 2)), ("cpu", (2, 6))]
    split, whole = load(model, plan, (0, 6), unwatched), load(model, model.plan([room(GIB)]), (0, 6), unwatched)
    assert isinstance(split, SplitBlocks)
    hidden = torch.randn(1, 3, 64)
    torch.testing.assert_close(split.run(hidden, split.new_cache(), 0, 6), whole.run(hidden, whole.new_cache(), 0, 6))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_is_computed_as_asked(tiny: Path, attention: Any) -> None:
    model = found(tiny, quantization="none", attention=attention)
    blocks = load(model, model.plan([room(GIB)]), (0, 6), unwatched)
    assert blocks._model.config._attn_implementation == attention
    usual = load(found(tiny, quantization="none"), model.plan([room(GIB)]), (0, 6), unwatched)
    hidden = torch.randn(1, 3, 64)
    torch.testing.assert_close(
        blocks.run(hidden, blocks.new_cache(), 0, 6), usual.run(hidden, usual.new_cache(), 0, 6), rtol=1e-4, atol=1e-4
    )


def test_loading_tells_how_far_it_is(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("far_node.loading._PROGRESS_SECONDS", 0.0)
    told: list[dict[str, Any]] = []
    model = found(tiny, quantization="none")
    fetch(model, (0, 6), lambda event, **facts: told.append({"event": event, **facts}))
    load(model, model.plan([room(GIB)]), (0, 6), lambda event, **facts: told.append({"event": event, **facts}))
    assert {fact["event"] for fact in told} == {"progress"}
    reading = [(fact["done"], fact["total"]) for fact in told if fact["work"] == "reading"]
    assert reading == [(done, len(reading)) for done in range(len(reading))]
    assert len(reading) > 6


def test_a_model_is_not_removed_from_the_models_directory_while_it_is_in_use(tiny: Path) -> None:
    store = ModelStore()
    add(store, "mine", str(tiny))
    model = find(ModelOptions("mine", quantization="none"), "cpu")
    fetch(model, (0, 6), unwatched)
    load(model, model.plan([room(GIB)]), (0, 6), unwatched)
    with pytest.raises(ModelInUse):
        store.remove("mine")
    model.let_go()
    store.remove("mine")


@pytest.mark.parametrize("wrong", [{"blocks": (0, 7)}, {"num_blocks": 5}], ids=str)
def test_a_model_that_is_refused_is_not_in_use(tiny: Path, wrong: dict[str, Any]) -> None:
    store = ModelStore()
    add(store, "mine", str(tiny))
    with pytest.raises(FarError):
        _plan_with_little_room(ModelOptions("mine", quantization="none", **wrong))
    store.remove("mine")


def _plan_with_little_room(options: ModelOptions) -> None:
    model = find(options, "cpu")
    with model.held():
        model.plan([room(1)])
