"""``far-node waker``: a door at which a serverless node is woken."""

from __future__ import annotations

from typing import Annotated

import typer

from discovery.console import Console, fail, quiet_libraries, run, until_stopped

app = typer.Typer(help="Start a serverless node when somebody needs it.", no_args_is_help=True)


@app.callback()
def waker() -> None:
    """Start a serverless node when somebody needs it."""


@app.command()
def serve(
    command: Annotated[list[str], typer.Argument(help="What starts the node, after --: far-node start …")],
    node: Annotated[str, typer.Option(help="Peer id of the node.")],
    url: Annotated[str, typer.Option(help="The door's address as others reach it: what the node has as --wake-url.")],
    host: Annotated[str, typer.Option(help="Address to listen on; TLS is the business of a proxy.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8004,
    caller: Annotated[list[str], typer.Option(help="Only calls of this peer id are heard; repeatable.")] = [],  # noqa: B006
    every: Annotated[float, typer.Option(min=0, help="Least seconds between two starts.")] = 60.0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Hear signed calls over HTTP, and start the node's process when it does not run."""
    from urllib.parse import urlsplit

    from discovery.protocol.errors import FarError
    from discovery.protocol.ids import check_peer_id

    console = Console(json)
    quiet_libraries()
    try:
        for peer_id in (node, *caller):
            check_peer_id(peer_id)
    except FarError as error:
        fail(console, error)

    async def listen() -> None:
        import asyncio

        from discovery.protocol.oncall import Calls
        from discovery.web.server import Server, listening, url_of
        from far_node.waker import Waker, create_app

        waker = Waker(command, Calls(url, frozenset({node}), frozenset(caller)), every)
        door = listening(host, port)
        at = url_of(host, door.getsockname()[1])
        server = Server(
            create_app(waker, urlsplit(url).path or "/"),
            lambda: console.event("ready", f"calls for {node} are heard at {url}, on {at}", url=url, at=at),
            _MOST_CONNECTIONS,
        )
        serving = asyncio.create_task(server.serve(sockets=[door]))
        await until_stopped(server.stop)
        await serving
        await waker.close()
        console.event("stopped", "stopped")

    run(console, listen)


_MOST_CONNECTIONS = 64
