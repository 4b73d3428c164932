"""Shapes of the registry's requests and answers; a manifest has its own."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from discovery.protocol.announcement import MAX_MODEL_ID_LENGTH
from discovery.registry.library import State, Status


class ShardRequest(BaseModel):
    """Which model to read anew."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model_id: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_ID_LENGTH)]


class ModelStatus(BaseModel):
    """How far a model is. ``done_bytes`` of ``total_bytes`` were read to prepare it; ``error`` says why it failed."""

    model_id: str
    state: State
    done_bytes: int
    total_bytes: int
    digest: str | None
    block_count: int | None
    size_bytes: int | None
    error: str | None

    @classmethod
    def of(cls, model_id: str, status: Status) -> Self:
        """What is told of a status."""
        manifest = status.manifest
        return cls(
            model_id=model_id,
            state=status.state,
            done_bytes=status.done_bytes,
            total_bytes=status.total_bytes,
            digest=manifest.digest if manifest else None,
            block_count=manifest.block_count if manifest else None,
            size_bytes=sum(entry.size for entry in manifest.shards) if manifest else None,
            error=status.error.message if status.error else None,
        )


class ModelStatuses(BaseModel):
    """Every model of the registry."""

    models: list[ModelStatus]
