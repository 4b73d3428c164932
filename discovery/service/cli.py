"""``far-discovery serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from discovery.console import Console, quiet_libraries, run, settle_memory, until_stopped


def serve(
    config: Annotated[
        Path | None,
        typer.Option(
            help="File of settings; default: FAR_DISCOVERY_CONFIG, ./far-discovery.toml, ~/.far/far-discovery.toml, "
            "the first that exists.",
            show_default=False,
        ),
    ] = None,
    initial_peers: Annotated[
        list[str] | None, typer.Option(help="Peers of the swarm to follow; repeatable.", show_default=False)
    ] = None,
    prefix: Annotated[str | None, typer.Option(help="DHT prefix of the swarm; far.", show_default=False)] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1.", show_default=False)] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 8001; 0: a free one.", show_default=False)
    ] = None,
    public_uri: Annotated[
        str | None, typer.Option(help="How nodes reach us; what they sign is for this address.", show_default=False)
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the database lies.", show_default=False)] = None,
    database_url: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL of another database, such as PostgreSQL.", show_default=False)
    ] = None,
    geoip_db: Annotated[Path | None, typer.Option(help="City database of addresses.", show_default=False)] = None,
    probe: Annotated[
        bool | None, typer.Option("--probe", help="Run a prober of nodes beside it.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Tell over HTTP who serves what, as the nodes themselves have announced and signed it."""
    console = Console(json)
    flags = {
        "initial_peers": tuple(initial_peers) if initial_peers else None,
        "dht_prefix": prefix,
        "host": host,
        "port": port,
        "public_uri": public_uri,
        "data_dir": data_dir,
        "database_url": database_url,
        "geoip_db": geoip_db,
        "probe": probe,
    }

    async def main() -> None:
        import asyncio
        import logging
        from contextlib import AsyncExitStack

        from discovery.dht.identity import load_identity
        from discovery.service.app import create_app
        from discovery.service.companion import command_of, identity_of, kept_running
        from discovery.service.settings import Settings
        from discovery.web.server import Server, listening, url_of

        settings = Settings.read(config, **{name: value for name, value in flags.items() if value is not None})
        quiet_libraries(getattr(logging, settings.log_level.upper()))
        with listening(settings.host, settings.port) as door:
            port = door.getsockname()[1]
            settings = settings.model_copy(update={"port": port})
            url = url_of(settings.host, port)
            prober = command_of(settings, url) if settings.probe else []
            if prober:
                ours = load_identity(identity_of(settings)).peer_id
                settings = settings.model_copy(update={"probers": (*settings.probers, ours)})
            app = create_app(settings)

            def ready() -> None:
                console.event(
                    "ready",
                    f"discovery of the swarm {settings.dht_prefix} on {url}",
                    url=url,
                    prefix=settings.dht_prefix,
                    audience=settings.uri,
                )

            # The rooms are opened here rather than by uvicorn, which would turn what is missing into a stack trace.
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(app.router.lifespan_context(app))
                if prober:
                    await stack.enter_async_context(kept_running(prober))
                server = Server(app, ready, settings.max_connections, lifespan="off")
                settle_memory()  # a third of a second in which nobody is answered, again and again
                serving = asyncio.create_task(server.serve(sockets=[door]))
                await until_stopped(server.stop)
                await serving
        console.event("stopped", "stopped")

    run(console, main)
