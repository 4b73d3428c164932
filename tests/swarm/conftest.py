"""One real swarm for all tests that do not break it: a bootstrap peer and six nodes in processes of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from far_mesh.client import Mesh
from far_mesh.opener import Swarm
from tests.support.models import BUNDLED_VOCABULARY, make_model, with_bundled_tokenizer
from tests.support.swarm import Process, Town

DEMO_SPANS = ((0, 3), (2, 5), (5, 8))
"""Uneven, and the first or the second is used in part: who is quicker takes what both could."""

GPT2_SPANS = ((0, 1), (1, 4), (4, 6))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what the processes wrote."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for argument in item.funcargs.values():
            town = argument.town if isinstance(argument, RealSwarm) else argument
            if isinstance(town, Town):
                report.sections.append(("what the processes wrote", town.story()))
    return report


@dataclass(frozen=True)
class Served:
    """A model and the nodes that serve it together."""

    model: str
    nodes: tuple[Process, ...]
    spans: tuple[tuple[int, int], ...]

    def is_route(self, blocks: Iterable[Sequence[int]]) -> bool:
        """Whether these ranges are all blocks in order, each within the span of its node."""
        ranges = [(first, end) for first, end in blocks]
        borders = [0, *(end for _, end in ranges)]
        return (
            ranges == list(pairwise(borders))
            and borders[-1] == self.spans[-1][1]
            and all(span[0] <= first < end <= span[1] for (first, end), span in zip(ranges, self.spans, strict=True))
        )


@dataclass(frozen=True)
class RealSwarm:
    """The town, and what is served in it."""

    town: Town
    demo: Served
    gpt2: Served

    @property
    def initial_peers(self) -> list[str]:
        """For those who join."""
        return self.town.initial_peers


@pytest.fixture(scope="session")
def gpt2_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of another shape, with random weights large enough to say something."""
    path = make_model(tmp_path_factory.mktemp("models") / "tiny-gpt2", "gpt2", vocab_size=BUNDLED_VOCABULARY, seed=5)
    return with_bundled_tokenizer(path)


@pytest.fixture(scope="package")
def real_swarm(tmp_path_factory: pytest.TempPathFactory, gpt2_model: Path) -> Iterator[RealSwarm]:
    with Town(tmp_path_factory.mktemp("town")) as town:
        demo = [town.start_node("far-demo", blocks) for blocks in DEMO_SPANS]
        gpt2 = [town.start_node(gpt2_model, blocks) for blocks in GPT2_SPANS]
        for node in (*demo, *gpt2):
            node.wait_until_ready()
        yield RealSwarm(
            town,
            Served("far-demo", tuple(demo), DEMO_SPANS),
            Served(str(gpt2_model), tuple(gpt2), GPT2_SPANS),
        )


@pytest.fixture(params=["demo", "gpt2"])
def served(request: pytest.FixtureRequest, real_swarm: RealSwarm) -> Served:
    """Each of the two models in turn."""
    chosen: Served = getattr(real_swarm, request.param)
    return chosen


@pytest.fixture
async def visitor(real_swarm: RealSwarm) -> AsyncIterator[Swarm]:
    """A client of the swarm."""
    swarm = await Swarm.join(real_swarm.initial_peers)
    yield swarm
    await swarm.close()


@pytest.fixture
async def mesh(visitor: Swarm, served: Served) -> AsyncIterator[Mesh]:
    """A client for the model in turn."""
    mesh = await Mesh.over(visitor, served.model)
    yield mesh
    await mesh.close()
