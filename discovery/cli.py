"""``far-discovery``: peers that help others find each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from discovery.console import Console, quiet_libraries, run, until_stopped

app = typer.Typer(
    help="Help the nodes of a swarm find each other.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.callback()
def _main() -> None:
    """Keeps `bootstrap` a subcommand while it is the only one."""


@app.command()
def bootstrap(
    host_maddr: Annotated[list[str], typer.Option(help="Where to listen; repeatable.")] = ["/ip4/0.0.0.0/tcp/31337"],  # noqa: B006
    identity: Annotated[Path, typer.Option(help="Key file of this peer; made if absent.")] = Path("~/.far/bootstrap"),
    initial_peers: Annotated[list[str], typer.Option(help="Other bootstrap peers of the same swarm.")] = [],  # noqa: B006
    public_addr: Annotated[list[str], typer.Option(help="Multiaddr others reach us at.")] = [],  # noqa: B006
    prefix: Annotated[str, typer.Option(help="DHT prefix; a private swarm has its own.")] = "far",
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Run a bootstrap peer: the address newcomers are given. It serves no model."""
    console = Console(json)
    quiet_libraries()

    async def serve() -> None:
        from discovery.dht.identity import load_identity
        from discovery.dht.peer import PeerConfig, SwarmPeer

        config = PeerConfig(
            initial_peers=tuple(initial_peers),
            host_maddrs=tuple(host_maddr),
            announce_maddrs=tuple(public_addr),
            prefix=prefix,
        )
        peer = await SwarmPeer.start(load_identity(identity), config)
        maddrs = await peer.maddrs()
        lines = "\n".join(f"  --initial-peers {maddr}" for maddr in maddrs)
        console.event(
            "ready", f"bootstrap peer {peer.peer_id} is up; join it with\n{lines}", peer_id=peer.peer_id, maddrs=maddrs
        )
        await until_stopped(peer.close)
        console.event("stopped", "stopped")

    run(console, serve)


if __name__ == "__main__":
    app()
