"""``far-node``: serve blocks of a model and be paid for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from discovery.console import Console, fail, quiet_libraries, run, settle_memory, until_stopped

app = typer.Typer(
    help="Serve blocks of a language model to the Far Mesh swarm, and be paid for the work.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _main() -> None:
    """Keeps `start` a subcommand while it is the only one."""


@app.command()
def start(
    model: Annotated[str, typer.Option(help="Model directory, hub id (owner/name) or the bundled far-demo.")],
    wallet: Annotated[str, typer.Option(help="EVM address that is paid, 0x…")],
    initial_peers: Annotated[list[str], typer.Option(help="Multiaddr of a swarm peer, …/p2p/12D3KooW…; repeatable.")],
    model_id: Annotated[
        str | None, typer.Option(help="Public name of the model; default: directory name or hub id.")
    ] = None,
    blocks: Annotated[str | None, typer.Option(help="Blocks to serve, a:b with b exclusive; default: all.")] = None,
    quantization: Annotated[str, typer.Option(help="none, int8 or nf4.")] = "none",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default by device.")] = None,
    gpu: Annotated[
        int | None, typer.Option(min=0, help="Index of the CUDA device; default: the first, if any.")
    ] = None,
    cpu_only: Annotated[bool, typer.Option("--cpu-only", help="Do not use a GPU.")] = False,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads for the computation; default: torch's choice.")
    ] = None,
    identity: Annotated[Path, typer.Option(help="Key file of this node; made if absent.")] = Path("~/.far/identity"),
    host_maddr: Annotated[list[str], typer.Option(help="Where to listen; repeatable.")] = ["/ip4/0.0.0.0/tcp/31330"],  # noqa: B006
    public_addr: Annotated[list[str], typer.Option(help="Address others reach us at, IP:PORT or multiaddr.")] = [],  # noqa: B006
    map_ports: Annotated[bool, typer.Option("--map-ports", help="Ask the router for a port (UPnP, NAT-PMP).")] = False,
    prefix: Annotated[str, typer.Option(help="DHT prefix; a private swarm has its own.")] = "far",
    cache_mb: Annotated[int, typer.Option(min=1, help="Budget of the attention cache in MiB.")] = 1024,
    max_sessions: Annotated[int, typer.Option(min=1, help="Sessions open at once.")] = 64,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Load a range of blocks, join the swarm, announce, and serve until stopped."""
    from typing import get_args

    from discovery.protocol.announcement import Dtype, Quantization
    from discovery.protocol.errors import FarError, InvalidArgument
    from discovery.protocol.ids import check_wallet
    from far_node.config import NodeConfig, parse_blocks, parse_public_address

    console = Console(json)
    quiet_libraries()
    try:
        if quantization not in get_args(Quantization):
            raise InvalidArgument(f"--quantization {quantization!r} is not one of none, int8, nf4")
        if dtype is not None and dtype not in get_args(Dtype):
            raise InvalidArgument(f"--dtype {dtype!r} is not one of float32, bfloat16, float16")
        if cpu_only and gpu is not None:
            raise InvalidArgument("--cpu-only and --gpu exclude each other")
        config = NodeConfig(
            model=model,
            model_id=model_id,
            wallet=check_wallet(wallet),
            initial_peers=tuple(initial_peers),
            blocks=parse_blocks(blocks) if blocks is not None else None,
            quantization=cast(Quantization, quantization),
            dtype=cast("Dtype | None", dtype),
            device="cpu" if cpu_only else f"cuda:{gpu}" if gpu is not None else "auto",
            threads=threads,
            identity=identity,
            host_maddrs=tuple(host_maddr),
            public_maddrs=tuple(parse_public_address(address) for address in public_addr),
            prefix=prefix,
            map_ports=map_ports,
            cache_bytes=cache_mb << 20,
            max_sessions=max_sessions,
        )
    except FarError as error:
        fail(console, error)

    async def serve() -> None:
        from far_node.node import Node

        console.event("starting", f"loading {model} …", model=model)
        node = await Node.start(config)
        settle_memory()
        about = node.announcement
        console.event(
            "ready",
            f"serving blocks {about.first_block}:{about.end_block} of {about.model_id} ({about.quantization}, "
            f"{about.dtype}) as {about.peer_id}, paid to {about.wallet}",
            peer_id=about.peer_id,
            wallet=about.wallet,
            maddrs=node.maddrs,
            model_id=about.model_id,
            model_digest=about.model_digest,
            blocks=about.blocks,
            quantization=about.quantization,
            dtype=about.dtype,
        )
        await until_stopped(node.stop)
        console.event("stopped", "stopped", token_layers_served=node.handler.token_layers_served)

    run(console, serve)


if __name__ == "__main__":
    app()
