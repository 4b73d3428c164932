"""A gateway in a process of its own, on a mesh that says twelve words: to be killed."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from far_mesh.marketplace.serve import run
from far_mesh.marketplace.settings import Settings
from tests.far_mesh.marketplace.doubles import GenerationDouble, MeshDouble, Piece, meshes_of


class SlowGeneration(GenerationDouble):
    """Words that take a moment, so that there are moments to be killed in."""

    async def __aiter__(self) -> AsyncIterator[Piece]:
        async for piece in super().__aiter__():
            await asyncio.sleep(random.uniform(0, 0.02))
            yield piece


@dataclass
class SlowMesh(MeshDouble):
    """A mesh of such generations."""

    async def open(self, prompt_ids: Any, options: Any, **more: Any) -> GenerationDouble:
        """A route, at once."""
        return SlowGeneration(self, len(prompt_ids), options, more.get("on_checkpoint"))


def serve(settings: dict[str, Any], log: str) -> None:
    """Serve until killed; what is logged goes behind what is in ``log``."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    random.seed()
    run(Settings.read(**settings), meshes_of(SlowMesh()))  # type: ignore[arg-type]
