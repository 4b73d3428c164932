"""Both clients, and a server that plays scripts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sdk.python.doors import EventLoop, Threads
from tests.support.scripted_server import ScriptedServer


@pytest.fixture(params=[Threads, EventLoop], ids=["threads", "loop"])
def door(request: pytest.FixtureRequest) -> Iterator[Threads]:
    """Each client in turn."""
    opened: Threads = request.param()
    yield opened
    opened.close()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """One that knows no path yet."""
    with ScriptedServer() as opened:
        yield opened
