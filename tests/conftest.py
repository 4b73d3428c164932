"""What every test gets: a cache of its own, no hub, one thread per process, logs that are read on failure only.

And how several workers share the tests out.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from structlog.dev import ConsoleRenderer, plain_traceback
from xdist.scheduler import LoadFileScheduling

# before torch and transformers are imported, here or in a child process
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["FAR_CONFIG"] = ""  # whoever runs the tests may have a gateway of their own
os.environ["FAR_NODE_CONFIG"] = ""  # or a node
os.environ["FAR_DISCOVERY_CONFIG"] = ""  # or a discovery service
for variable in ("FAR_CACHE_DIR", "FAR_MODELS_DIR"):
    os.environ[variable] = tempfile.mkdtemp(prefix="far-test-")
    atexit.register(shutil.rmtree, os.environ[variable], ignore_errors=True)

settings.register_profile(
    "far",
    deadline=None,  # the machine may be busy
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("far")

structlog.configure(  # a traceback with the values of all variables takes seconds, in which the loop stands still
    processors=[
        ConsoleRenderer(exception_formatter=plain_traceback) if isinstance(one, ConsoleRenderer) else one
        for one in structlog.get_config()["processors"]
    ]
)

WORKERS = 4
"""At most, however many cores there are: each takes a gigabyte, and what it starts takes more."""

FIRST = ("tests/swarm/", "tests/browser/", "tests/far_node/blocks/test_architectures.py", "tests/far_mesh/demo/")
"""What takes longest begins first, so that no worker is left alone with it in the end."""

ONE_SWARM = tuple(
    f"tests/swarm/test_{name}.py" for name in ("auto", "bench", "generation", "hang_up", "probes", "refusals", "route")
)
"""These ask the same seven processes, which are started once."""

ONE_STAGE = "tests/browser/"
"""So do these, and look at them with one browser."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What ``-n auto`` is: a worker for each core; none for a few files, which begin sooner in this process."""
    paths = (argument.partition("::")[0] for argument in config.args)
    return min(WORKERS, os.cpu_count() or 1) if any(map(os.path.isdir, paths)) else 0


class _ByFile(LoadFileScheduling):  # type: ignore[misc]
    """What the tests of a file share is made once."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        if file.startswith(ONE_STAGE):
            return ONE_STAGE
        return ONE_SWARM[0] if file in ONE_SWARM else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByFile:
    """Who runs what, if there are several workers."""
    config.option.loadscopereorder = False  # by the number of tests: it is FIRST that says what takes long
    return _ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The order for several workers."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: [not item.nodeid.startswith(path) for path in FIRST])


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new directory each time. pytest finds its numbers by looking at all there are, which thousands make slow."""
    directory = tmp_path_factory.mktemp("homes")
    return (directory / str(number) for number in count())


@pytest.fixture(autouse=True)
def far_cache(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing a test writes meets the user's own cache, or another test's."""
    directory = next(homes) / "cache"
    directory.mkdir(parents=True)
    monkeypatch.setenv("FAR_CACHE_DIR", str(directory))
    return directory


@pytest.fixture(autouse=True)
def logs_stay() -> Iterator[None]:
    """A command sets up the logs of its process, which here is that of all tests."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(autouse=True)
def models_directory(far_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models that a test pulls or adds are its own."""
    directory = far_cache.parent / "models"
    monkeypatch.setenv("FAR_MODELS_DIR", str(directory))
    return directory
