"""Which layer a weight belongs to, told by its name alone, for every architecture.

The decoder's layers are numbered in the names of their weights: ``model.layers.7.mlp.up_proj.weight``,
``transformer.h.7.attn.c_proj.bias``, ``backbone.blocks.7.norm.weight``. So the decoder is the part of the names, up to
the number, that occurs with every number from 0 to the count of layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from discovery.registry.files import parse_json

MAX_BLOCKS = 4096
_BLOCK_COUNT_NAMES = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_OTHER_STACKS = ("vision", "visual", "image", "audio", "speech", "mtp")


@dataclass(frozen=True)
class Layering:
    """The names of a model's weights, sorted by layer. ``prefix``: all before the number, such as ``model.layers.``"""

    prefix: str

    def layer_of(self, name: str) -> int | None:
        """The layer that a weight belongs to, or None for the ends: embeddings, final norm, head and other parts.

        Layers beyond the decoder's (a multi-token-prediction head keeps one there) have numbers like the others.
        """
        if not name.startswith(self.prefix):
            return None
        number, dot, _ = name[len(self.prefix) :].partition(".")
        return int(number) if dot and _is_number(number) else None


def find_layering(names: Iterable[str], block_count: int) -> Layering | None:
    """Where the decoder's layers are among the names of a model's weights; None if they cannot be told.

    Of several stacks as long, the one nearest to the root is the decoder, unless its name is that of another part.
    """
    numbers: dict[str, set[int]] = {}
    for name in names:
        prefix, number = _first_number(name)
        if number is not None:
            numbers.setdefault(prefix, set()).add(number)
    wanted = set(range(block_count))
    found = [prefix for prefix, seen in numbers.items() if wanted <= seen]
    return Layering(min(found, key=_unlikely)) if wanted and found else None


def block_count_in(config: object) -> int | None:
    """How many decoder layers a parsed ``config.json`` speaks of; None if it does not say.

    >>> block_count_in({"n_layer": 12})
    12
    """
    if not isinstance(config, dict):
        return None
    decoder = config.get("text_config", config)
    if not isinstance(decoder, dict):
        return None
    count = next((decoder[name] for name in _BLOCK_COUNT_NAMES if name in decoder), None)
    return count if type(count) is int and 1 <= count <= MAX_BLOCKS else None


def block_count_of_text(config: bytes) -> int | None:
    """:func:`block_count_in` for the bytes of a file that may not even be JSON."""
    try:
        return block_count_in(parse_json(config))
    except ValueError:
        return None


def _first_number(name: str) -> tuple[str, int | None]:
    parts = name.split(".")
    for place, part in enumerate(parts[:-1]):
        if _is_number(part):
            return ".".join(parts[:place]) + "." * bool(place), int(part)
    return "", None


def _is_number(text: str) -> bool:
    return len(text) <= 4 and text.isascii() and text.isdecimal()


def _unlikely(prefix: str) -> tuple[bool, bool, int, str]:
    return any(word in prefix for word in _OTHER_STACKS), "encoder" in prefix, prefix.count("."), prefix
