"""A loop that takes what is ready in another order than it came, and leaves some of it lying for a while.

asyncio runs what is ready first in, first out, and on a quiet machine that is nearly the same order each time. On a
busy one, over a network, it is not. With ``pytest -p tests.support.chaos --chaos 0:50`` every asynchronous test runs
once for each of these seeds on a loop of this kind. Only tasks are moved, never the callbacks of transports, whose
order is promised. No time passes: a task is left lying for so many rounds of the loop.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Any

import pytest

_LEFT_LYING = 0.3
_MOST_ROUNDS = 12


class ChaosLoop(asyncio.SelectorEventLoop):
    """A loop whose order of tasks is drawn from ``seed``."""

    _ready: deque[asyncio.Handle]

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._chance = random.Random(seed)
        self._lying: list[tuple[int, asyncio.Handle]] = []

    def _run_once(self) -> None:
        tasks = [handle for handle in self._ready if _is_of_a_task(handle)]
        others = [handle for handle in self._ready if not _is_of_a_task(handle)]
        self._ready.clear()
        for handle in tasks:
            rounds = self._chance.randint(1, _MOST_ROUNDS) if self._chance.random() < _LEFT_LYING else 0
            self._lying.append((rounds, handle))
        self._chance.shuffle(self._lying)
        self._ready.extend(others)
        self._ready.extend(handle for rounds, handle in self._lying if rounds == 0)
        self._lying = [(rounds - 1, handle) for rounds, handle in self._lying if rounds]
        if self._lying and not self._ready:
            self.call_soon(_nothing)  # lest it wait for something to become ready
        super()._run_once()  # type: ignore[misc]


def _nothing() -> None:
    """What keeps a loop going round."""


def _is_of_a_task(handle: asyncio.Handle) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)  # type: ignore[attr-defined]


class _Policy(asyncio.DefaultEventLoopPolicy):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return ChaosLoop(self._seed)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--chaos FIRST:END``."""
    parser.addoption("--chaos", default="", metavar="FIRST:END", help="run asynchronous tests once for each seed")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each seed."""
    seeds = metafunc.config.getoption("--chaos")
    if seeds and "event_loop_policy" in metafunc.fixturenames:
        first, _, end = seeds.partition(":")
        metafunc.parametrize("event_loop_policy", range(int(first), int(end)), indirect=True, ids="chaos{}".format)


@pytest.fixture
def event_loop_policy(request: Any) -> asyncio.AbstractEventLoopPolicy:
    """pytest-asyncio asks this for the loop of a test."""
    seed = getattr(request, "param", None)
    return asyncio.DefaultEventLoopPolicy() if seed is None else _Policy(seed)
