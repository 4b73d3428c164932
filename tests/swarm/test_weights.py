"""Nodes that download nothing but their blocks from a registry serve the model, token for token."""

from __future__ import annotations

from pathlib import Path

import pytest

from far_mesh.client import Mesh
from far_mesh.config import GenerationOptions
from far_node.blocks.source import bundled_model_path, find_model
from tests.support.models import greedy, whole_model
from tests.support.registry import a_registry
from tests.support.swarm import Town, run_command

pytestmark = pytest.mark.swarm

NAME = "far/tiny"
SPANS = ((0, 3), (3, 8))


def weights_in(directory: Path) -> set[str]:
    return {path.name for path in directory.rglob("*.safetensors")}


def layers(first: int, end: int) -> set[str]:
    return {f"layer-{number:05d}.safetensors" for number in range(first, end)}


async def test_a_swarm_without_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every machine has a models directory of its own, and at the start nothing in it."""
    with a_registry({NAME: bundled_model_path()}) as registry, Town(tmp_path / "town") as town:
        registry.cut_after = [10**9] * 10 + [300_000] * 2  # after the small files, in the middle of two layers
        nodes = []
        for number, span in enumerate(SPANS):
            monkeypatch.setenv("FAR_MODELS_DIR", str(tmp_path / f"machine{number}"))
            nodes.append(town.start_node(NAME, span, "--registry", registry.url, "--quantization", "none"))
        for node in nodes:
            node.wait_until_ready()
        for number, span in enumerate(SPANS):
            assert weights_in(tmp_path / f"machine{number}") == layers(*span)
        size = next((tmp_path / "machine0").rglob("layer-00000.safetensors")).stat().st_size
        assert registry.cut_after == []
        assert 8 * size <= sum(registry.sent[name] for name in layers(0, 8)) < 9 * size, "they went on where they were"

        monkeypatch.setenv("FAR_MODELS_DIR", str(tmp_path / "client"))
        pulled = run_command("far_node.cli", "models", "pull", NAME, "--ends", "--registry", registry.url, "--json")
        assert pulled.status == 0, pulled.out + pulled.err
        assert weights_in(tmp_path / "client") == {"ends.safetensors"}

        async with await Mesh.join(NAME, town.initial_peers) as mesh:
            assert mesh.model_digest == find_model("far-demo").digest, "the digest of the whole, which nobody here has"
            ids = mesh.encode("What is the capital of France?")
            tokens = [token.id async for token in mesh.generate(ids, GenerationOptions(max_tokens=30))]
        assert tokens == greedy(whole_model(bundled_model_path()), ids, 30)
