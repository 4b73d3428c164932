"""How much a node takes on at once."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.protocol.errors import InvalidArgument


@dataclass(frozen=True)
class Limits:
    """Bounds of one node, over all models it serves.

    Attributes:
        max_batch_size: cache rows computed in one forward pass.
        prefill_chunk: positions of a prefill computed at a time; between two chunks the steps of others get in.
        queue_size: steps that may wait for the device.
        queue_timeout: seconds a step may wait before it is refused.
        step_timeout: seconds a step may take once it has begun.
        max_sessions: sessions open at once.
        max_sessions_per_client: of these, by one peer.
        idle_timeout: seconds without a step after which a session is closed.
        prefix_cache_bytes: memory for the states of prompts seen before; 0 keeps none.
    """

    max_batch_size: int = 16
    prefill_chunk: int = 512
    queue_size: int = 256
    queue_timeout: float = 30.0
    step_timeout: float = 120.0
    max_sessions: int = 64
    max_sessions_per_client: int = 64
    idle_timeout: float = 300.0
    prefix_cache_bytes: int = 128 << 20

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "prefill_chunk", "queue_size", "max_sessions", "max_sessions_per_client"):
            if getattr(self, name) < 1:
                raise InvalidArgument(f"{_flag(name)} must be at least 1")
        for name in ("queue_timeout", "step_timeout", "idle_timeout"):
            if not getattr(self, name) > 0:
                raise InvalidArgument(f"{_flag(name)} must be more than 0 seconds")
        if self.prefix_cache_bytes < 0:
            raise InvalidArgument("the prefix cache cannot be smaller than nothing")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
