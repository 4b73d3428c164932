"""What every test gets: a cache of its own, no hub, one thread per process, logs that are read on failure only."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# before torch and transformers are imported, here or in a child process
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
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


@pytest.fixture(autouse=True)
def far_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing a test writes meets the user's own cache, or another test's."""
    directory = tmp_path_factory.mktemp("far-cache")
    monkeypatch.setenv("FAR_CACHE_DIR", str(directory))
    return directory


@pytest.fixture(autouse=True)
def models_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Models that a test pulls or adds are its own."""
    directory = tmp_path_factory.mktemp("far-models") / "models"
    monkeypatch.setenv("FAR_MODELS_DIR", str(directory))
    return directory
