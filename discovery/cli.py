"""``far-discovery``: peers that help others find each other."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from discovery.console import Console, quiet_libraries, run, until_stopped
from discovery.service.cli import serve

if TYPE_CHECKING:
    from discovery.dht.peer import SwarmPeer

ALONE_SECONDS = 30.0
"""For so long a bootstrap peer looks for the others that it names before it says that it is ready."""

app = typer.Typer(
    help="Help the nodes of a swarm find each other.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.command()
def bootstrap(
    host_maddr: Annotated[list[str], typer.Option(help="Where to listen; repeatable.")] = ["/ip4/0.0.0.0/tcp/31337"],  # noqa: B006
    identity: Annotated[Path, typer.Option(help="Key file of this peer; made if absent.")] = Path("~/.far/bootstrap"),
    initial_peers: Annotated[list[str], typer.Option(help="Other bootstrap peers of the same swarm.")] = [],  # noqa: B006
    public_addr: Annotated[list[str], typer.Option(help="Multiaddr others reach us at.")] = [],  # noqa: B006
    relay: Annotated[
        bool, typer.Option("--relay/--no-relay", help="Let nodes without an open port be reached through this peer.")
    ] = True,
    relay_slots: Annotated[int, typer.Option(min=1, help="Most nodes that may be reached through it.")] = 1024,
    relay_connections: Annotated[
        int, typer.Option(min=1, help="Most connections of one node, or of one client.")
    ] = 256,
    relay_gib: Annotated[
        int, typer.Option(min=1, max=1 << 20, help="GiB each way after which a connection is cut off.")
    ] = 1024,
    relay_hours: Annotated[
        int, typer.Option(min=1, max=24 * 365, help="Hours after which a connection is cut off.")
    ] = 24,
    prefix: Annotated[str, typer.Option(help="DHT prefix; swarms that share peers have each their own.")] = "far",
    swarm: Annotated[Path | None, typer.Option(help="File of a private swarm; see far-mesh swarm.")] = None,
    invite: Annotated[
        str | None, typer.Option(envvar="FAR_INVITE", help="Invitation to it, for a node; or a file that has it.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Run a bootstrap peer: the address newcomers are given, and a relay for nodes behind NAT. It serves no model."""
    console = Console(json)
    quiet_libraries()

    async def serve() -> None:
        import asyncio

        from discovery.dht.identity import load_identity
        from discovery.dht.peer import PeerConfig, SwarmPeer
        from discovery.dht.relay import RelayLimits
        from discovery.protocol.membership import membership_of

        membership = membership_of(swarm, invite)
        config = PeerConfig(
            initial_peers=tuple(initial_peers),
            host_maddrs=tuple(host_maddr),
            announce_maddrs=tuple(public_addr),
            prefix=prefix if membership is None else membership.charter.swarm,
            membership=membership,
            is_relay=relay,
            relay_limits=RelayLimits(relay_slots, relay_connections, relay_gib << 30, relay_hours * 3600),
            dials_back=True,
            starts_alone=True,
        )
        peer = await SwarmPeer.start(load_identity(identity), config)
        stopping = asyncio.create_task(until_stopped(peer.close))
        telling = asyncio.create_task(tell_how_it_starts(console, peer))
        stopping.add_done_callback(lambda _: telling.cancel())
        if peer.gate is not None:
            out = asyncio.create_task(peer.gate.cast_out())
            await asyncio.wait({stopping, out}, return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                stopping.cancel()
                await peer.close()
                raise out.result()
        await stopping
        console.event("stopped", "stopped")

    run(console, serve)


async def tell_how_it_starts(console: Console, peer: SwarmPeer, patience: float = ALONE_SECONDS) -> None:
    """Tell that a bootstrap peer is ready: once it has joined the others that it names, or has looked for them for
    ``patience`` seconds."""
    import asyncio

    maddrs = await peer.maddrs()
    was_alone = not peer.has_joined
    if was_alone:
        sentence = "none of the other bootstrap peers answers yet: this one goes on alone, and looks for them"
        console.event("alone", sentence, peer_id=peer.peer_id, maddrs=maddrs)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await peer.joined()
    lines = "\n".join(f"  --initial-peers {maddr}" for maddr in maddrs)
    sentence = f"bootstrap peer {peer.peer_id} is up; join it with\n{lines}"
    if not peer.has_joined:
        sentence += "\nwarning: it is alone: those who join through it do not find those who join through the others"
    console.event("ready", sentence, peer_id=peer.peer_id, maddrs=maddrs, joined=peer.has_joined)
    await peer.joined()
    if was_alone:
        console.event("joined", "joined the other bootstrap peers")


app.command()(serve)


@app.command()
def registry(
    model: Annotated[list[str], typer.Option(help="Directory of a model, DIR or ID=DIR; repeatable.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for others' machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8002,
    token: Annotated[
        str | None, typer.Option(envvar="FAR_REGISTRY_TOKEN", help="What the operator shows to POST /models/shard.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Hand out models layer by layer over HTTP, so that a node downloads its blocks and nothing else."""
    console = Console(json)
    quiet_libraries()

    async def serve() -> None:
        import asyncio

        from discovery.protocol.errors import InvalidArgument
        from discovery.registry.app import MAX_CONNECTIONS, create_app, parse_model
        from discovery.registry.library import Status
        from discovery.web.server import Server, listening, url_of

        models = dict(parse_model(text) for text in model)
        if len(models) != len(model):
            raise InvalidArgument("two of the models have the same name; give them others with ID=DIR")
        door = listening(host, port)
        url = url_of(host, door.getsockname()[1])

        def tell(model_id: str, status: Status) -> None:
            if status.manifest is not None:
                count, digest = status.manifest.block_count, status.manifest.digest
                sentence = f"{model_id} is ready: {count} blocks, digest {digest[:16]}…"
                console.event("prepared", sentence, model_id=model_id, block_count=count, digest=digest)
            elif status.error is not None:
                console.error(status.error)

        server = Server(
            create_app(models, token, tell),
            lambda: console.event(
                "ready", f"layer registry of {', '.join(models)} on {url}", url=url, models=list(models)
            ),
            MAX_CONNECTIONS,
        )
        serving = asyncio.create_task(server.serve(sockets=[door]))
        await until_stopped(server.stop)
        await serving
        console.event("stopped", "stopped")

    run(console, serve)


if __name__ == "__main__":
    app()
