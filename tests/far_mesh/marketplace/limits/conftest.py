"""A Redis for the tests of a process, and windows in it and in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from discovery.web.windows import Memory, Store
from far_mesh.marketplace.limits.shared import Shared
from tests.support.redis_server import RedisServer


class Clock:
    """Microseconds, as somebody says."""

    def __init__(self) -> None:
        self.at = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    redis_server.empty()
    return redis_server.url


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Store]:
    """Windows of each kind in turn, at a time that the test says."""
    if request.param == "memory":
        yield Memory(clock)
        return
    shared = Shared(request.getfixturevalue("redis_url"), clock)
    yield shared
    await shared.close()
