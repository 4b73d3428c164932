"""Options that several commands have, written once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

_ROUTE_PANEL = "Route"


def _route_option(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel=_ROUTE_PANEL)


ModelOption = Annotated[str, typer.Option(help="Model directory, hub id (owner/name) or the bundled far-demo.")]
PeersOption = Annotated[list[str], typer.Option(help="Multiaddr of a swarm peer, …/p2p/12D3KooW…; repeatable.")]
PrefixOption = Annotated[str, typer.Option(help="DHT prefix of the swarm.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's choice.")]
NoSpeculationOption = Annotated[bool, typer.Option("--no-speculation", help="Send no guesses ahead.")]
LocalFirstOption = Annotated[
    int,
    typer.Option("--local-blocks-first", min=0, help="Compute so many first blocks here: no node sees what goes in."),
]
LocalLastOption = Annotated[
    int,
    typer.Option("--local-blocks-last", min=0, help="Compute so many last blocks here: no node sees what comes out."),
]

PreferOption = Annotated[str, _route_option("fastest, cheapest or balanced.")]
MaxPriceOption = Annotated[
    int | None, _route_option("Most that the route may ask on average, in 1e-9 FAR for 1,000 token-layers.")
]
MaxLatencyOption = Annotated[float | None, _route_option("Most milliseconds that a token may take round the ring.")]
RegionOption = Annotated[str | None, _route_option("Only nodes that say to be in it; eu has eu-west in it.")]
QuantizationOption = Annotated[list[str], _route_option("Only weights of this form: none, int8 or nf4; repeatable.")]
TrustedOption = Annotated[list[str], _route_option("Only nodes with this peer id or wallet; repeatable.")]
MinTpsOption = Annotated[float | None, _route_option("Tokens per second that each node must be able to compute.")]
MaxLoadOption = Annotated[float | None, _route_option("Only nodes no fuller than this, from 0 to 1.")]
MaxHopsOption = Annotated[int | None, _route_option("Most nodes.")]
