"""``far-mesh embed``: vectors of texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from discovery.console import Console, fail, quiet_libraries, run, settle_memory
from far_mesh.options import (
    DiscoveryOption,
    InviteOption,
    LocalFirstOption,
    LocalLastOption,
    ModelOption,
    PeersOption,
    PrefixOption,
    SwarmOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from far_mesh.model.embedding import Pooling


def embed(
    model: ModelOption,
    text: Annotated[list[str], typer.Option(help="What a vector is wanted of; repeatable.")],
    initial_peers: PeersOption = [],  # noqa: B006
    discovery: DiscoveryOption = None,
    pooling: Annotated[
        str, typer.Option(help="mean, last or cls: what of the last hidden states is the vector.")
    ] = "mean",
    no_normalize: Annotated[bool, typer.Option("--no-normalize", help="Leave vectors as long as they are.")] = False,
    local_blocks_first: LocalFirstOption = 0,
    local_blocks_last: LocalLastOption = 0,
    prefix: PrefixOption = "far",
    swarm: SwarmOption = None,
    invite: InviteOption = None,
    threads: ThreadsOption = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per vector and line.")] = False,
) -> None:
    """Print a vector for each text: the pooled last hidden states of the model, one number after the other."""
    from discovery.protocol.errors import FarError
    from discovery.protocol.membership import membership_of
    from far_mesh.entrance import Entrance

    console = Console(json)
    quiet_libraries()
    try:
        entrance = Entrance.of(initial_peers, discovery, prefix, membership_of(swarm, invite))
    except FarError as error:
        fail(console, error)

    async def ask() -> None:
        import torch

        from far_mesh.client import Mesh
        from far_mesh.config import MeshConfig
        from far_mesh.model.embedding import check_pooling

        check_pooling(pooling)
        if threads is not None:
            torch.set_num_threads(threads)
        # no speculation, which would load a draft model
        config = MeshConfig(prefix=entrance.prefix, membership=entrance.membership, speculation=False)
        joining = Mesh.join(
            model,
            await entrance.peers(),
            config,
            local_blocks_first=local_blocks_first,
            local_blocks_last=local_blocks_last,
        )
        async with await joining as mesh:
            settle_memory()
            made = await mesh.embed(text, pooling=cast("Pooling", pooling), normalize=not no_normalize)
        for index, vector in enumerate(made.vectors.tolist()):
            console.event("embedding", " ".join(f"{number:.6g}" for number in vector), index=index, embedding=vector)
        owed = sum(done.token_layers for done in made.contributions)
        console.event("done", prompt_tokens=made.prompt_tokens, token_layers=owed)

    run(console, ask)
