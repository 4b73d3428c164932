"""States of prompts seen before: a session whose first inputs are the same starts from there.

What counts are the very bytes a node was sent, hashed in a chain of :data:`PREFIX_POSITIONS` at a time, so the stored
keys, values and outputs are those the same computation would give. Nobody can plant a state for others: a node stores
what it computed itself. Sharing between clients is asked for by each of them, because a quick answer tells that
somebody else has sent the same beginning.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from discovery.protocol.codec import WireTensor, position_bytes
from far_node.blocks.slots import SlotRows

PREFIX_POSITIONS = 64
_DOMAIN = b"far-mesh/prefix/v1\n"

Keys = tuple[bytes, ...]


def prefix_keys(owner: bytes | None, blocks: tuple[int, int], hidden: WireTensor, before: Keys = ()) -> Keys:
    """One key for each whole :data:`PREFIX_POSITIONS` of a session's beginning, each covering all before it.

    Args:
        owner: whose states may be used; None for the states of all who share.
        blocks: the range that is computed.
        hidden: one row.
        before: keys of what came before ``hidden``, which comes first in what is returned.
    """
    scope = b"shared" if owner is None else b"of " + hashlib.sha256(owner).digest()
    domain = _DOMAIN + scope + f" {blocks[0]}:{blocks[1]} {hidden.dtype}\n".encode()
    key = before[-1] if before else hashlib.sha256(domain).digest()
    keys, data = list(before), memoryview(hidden.data)
    size = PREFIX_POSITIONS * position_bytes(hidden.dtype, hidden.shape[2])
    for at in range(0, len(data) - size + 1, size):
        digest = hashlib.sha256(key)
        digest.update(data[at : at + size])
        key = digest.digest()
        keys.append(key)
    return tuple(keys)


@dataclass(frozen=True)
class _Stored:
    keys: Keys
    layers: dict[int, tuple[Tensor, Tensor]]
    outputs: Tensor

    @property
    def bytes(self) -> int:
        tensors = [self.outputs, *(tensor for pair in self.layers.values() for tensor in pair)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class PrefixCache:
    """The least recently used states go when ``capacity_bytes`` are full. For the compute thread alone."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = self.hits = self.positions_reused = 0
        self._stored: OrderedDict[bytes, _Stored] = OrderedDict()
        self._by_key: dict[bytes, tuple[_Stored, int]] = {}

    def restore(self, keys: Keys, rows: SlotRows, start: int = 0) -> Tensor | None:
        """Put the longest known beginning of a session into its ``rows``, which hold it until ``start`` already.

        Returns:
            The outputs for the positions restored, (1, restored, hidden size); None when nothing more is known.
        """
        wanted = keys[start // PREFIX_POSITIONS :]
        found = next((self._by_key[key] for key in reversed(wanted) if key in self._by_key), None)
        if found is None:
            return None
        stored, end = found[0], found[1] * PREFIX_POSITIONS
        rows.prepare()
        for layer, (held_keys, held_values) in stored.layers.items():
            rows.slab.put(layer, rows.first, held_keys[:, :end], held_values[:, :end])
        rows.length = end
        self._stored.move_to_end(stored.keys[-1])
        self.hits += start == 0
        self.positions_reused += end - start
        return stored.outputs[None, start:end]

    def store(self, keys: Keys, rows: SlotRows, outputs: Tensor, start: int = 0) -> None:
        """Keep the beginning of a session that was just computed.

        Args:
            outputs: (1, positions, hidden size), those from ``start`` on; what came before must be known still.
        """
        if not keys or keys[-1] in self._by_key:
            return
        count = len(keys) * PREFIX_POSITIONS
        if start:
            before = self._by_key.get(keys[start // PREFIX_POSITIONS - 1])
            if before is None:
                return
            outputs = torch.cat((before[0].outputs[None, :start], outputs), dim=1)
        layers = {
            layer: (held_keys[:, :count].clone(), held_values[:, :count].clone())
            for layer, (held_keys, held_values) in rows.slab.row(rows.first).items()
        }
        entry = _Stored(keys, layers, outputs[0, :count].clone())
        if entry.bytes > self.capacity_bytes:
            return
        for key in keys:  # what it begins with need not be kept twice
            known = self._by_key.get(key)
            if known is not None and known[0].keys[-1] == key:
                self._drop(known[0])
        while self.used_bytes + entry.bytes > self.capacity_bytes:
            self._drop(next(iter(self._stored.values())))
        self._stored[keys[-1]] = entry
        self.used_bytes += entry.bytes
        for index, key in enumerate(keys):
            self._by_key[key] = entry, index + 1

    def _drop(self, entry: _Stored) -> None:
        del self._stored[entry.keys[-1]]
        self.used_bytes -= entry.bytes
        for index, key in enumerate(entry.keys):
            del self._by_key[key]
            for other in self._stored.values():  # that begins alike
                if other.keys[index : index + 1] == (key,):
                    self._by_key[key] = other, index + 1
