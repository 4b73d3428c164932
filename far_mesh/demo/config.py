"""What the demo is told, and how it divides the blocks. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from discovery.protocol.announcement import Quantization
from discovery.protocol.errors import InvalidArgument

DEFAULT_PROMPT = "Tell me a story about a brave rabbit."
DEFAULT_DATA_DIR = Path("~/.far/demo")
DEPOSIT_UNITS = 10 * 10**9  # 10 FAR
PRICE_UNITS = 100_000  # 0.0001 FAR per token, prompt and completion


@dataclass(frozen=True)
class DemoConfig:
    """``model`` is a directory, a hub id or a bundled name; ``port`` is the gateway's."""

    model: str
    prompt: str = DEFAULT_PROMPT
    max_tokens: int = 256
    nodes: int = 3
    data_dir: Path = DEFAULT_DATA_DIR
    port: int = 8000
    once: bool = False

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise InvalidArgument("--nodes must be at least 1")
        if self.max_tokens < 1:
            raise InvalidArgument("--max-tokens must be at least 1")
        if not self.prompt.strip():
            raise InvalidArgument("--prompt is empty")


@dataclass(frozen=True)
class NodePlan:
    """One node of the demo."""

    name: str
    blocks: tuple[int, int]
    quantization: Quantization


def plan_nodes(count: int, block_count: int) -> tuple[NodePlan, ...]:
    """Neighbouring ranges of nearly equal size; the second node runs in int8.

    Raises:
        InvalidArgument: more nodes than blocks.
    """
    if count > block_count:
        raise InvalidArgument(f"this model has {block_count} blocks, too few for --nodes {count}")
    borders = [-(-block_count * index // count) for index in range(count + 1)]
    return tuple(
        NodePlan(f"node-{index + 1}", (borders[index], borders[index + 1]), "int8" if index == 1 else "none")
        for index in range(count)
    )
