"""The client of the swarm, and the marketplace above it.

``Mesh`` streams tokens in asyncio programs; ``AutoDistributedModelForCausalLM`` is a transformers model whose blocks
are elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import discovery as discovery  # before any library of wallets: see discovery.recursion

if TYPE_CHECKING:
    from far_mesh.client import Mesh
    from far_mesh.model.auto import AutoDistributedModelForCausalLM

__all__ = ["AutoDistributedModelForCausalLM", "Mesh"]


def __getattr__(name: str) -> Any:
    """Import torch and transformers only for those who ask for them."""
    if name == "Mesh":
        from far_mesh.client import Mesh

        return Mesh
    if name == "AutoDistributedModelForCausalLM":
        from far_mesh.model.auto import AutoDistributedModelForCausalLM

        return AutoDistributedModelForCausalLM
    raise AttributeError(f"module 'far_mesh' has no attribute {name!r}")
