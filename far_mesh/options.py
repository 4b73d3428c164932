"""Options that several commands have, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_ROUTE_PANEL = "Route"
_CHOICE_PANEL = "How tokens are chosen"


def _route_option(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel=_ROUTE_PANEL)


ModelOption = Annotated[str, typer.Option(help="Model directory, hub id (owner/name) or the bundled far-demo.")]
PeersOption = Annotated[list[str], typer.Option(help="Multiaddr of a swarm peer, …/p2p/12D3KooW…; repeatable.")]
DiscoveryOption = Annotated[str | None, typer.Option(help="Address of a discovery service, which names peers.")]
PrefixOption = Annotated[str, typer.Option(help="DHT prefix of the swarm.")]
SwarmOption = Annotated[Path | None, typer.Option("--swarm", help="File of a private swarm that has invited us.")]
InviteOption = Annotated[
    str | None,
    typer.Option("--invite", envvar="FAR_INVITE", help="The invitation to it, or a file that has it."),
]
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


WakeNetworkOption = Annotated[
    list[str],
    typer.Option(
        "--wake-network",
        metavar="CIDR",
        help="Nodes that sleep may be called at addresses in it too, at any port and without TLS; repeatable.",
    ),
]


def _choice_option(help: str) -> Any:
    return typer.Option(help=help, rich_help_panel=_CHOICE_PANEL)


TemperatureOption = Annotated[float, _choice_option("0 is greedy.")]
TopPOption = Annotated[float, _choice_option("Nucleus sampling.")]
TopKOption = Annotated[int, _choice_option("Only so many of the likeliest; 0 is all.")]
MinPOption = Annotated[float, _choice_option("Only tokens with this share of the likeliest one's probability.")]
PresencePenaltyOption = Annotated[float, _choice_option("What tokens lose that the answer has already; -2 to 2.")]
FrequencyPenaltyOption = Annotated[float, _choice_option("What they lose for each time it has them; -2 to 2.")]
SeedOption = Annotated[int | None, _choice_option("Same seed, same text.")]
LogprobsOption = Annotated[
    int | None, _choice_option("With --json: log probabilities of the tokens, and of so many likeliest ones, up to 20.")
]
JsonSchemaOption = Annotated[Path | None, _choice_option("The answer is JSON that this schema describes.")]
RegexOption = Annotated[str | None, _choice_option("The whole answer matches this regular expression.")]

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
NearOption = Annotated[str | None, _route_option("Only nodes near LAT,LON in degrees: see --max-distance-km.")]
MaxDistanceOption = Annotated[
    float, _route_option("With --near: how far away a node may be. One of which nobody knows where it is, is not near.")
]
LocationOption = Annotated[
    str | None, _route_option("Where this machine is, LAT,LON in degrees: for round trips that nobody has measured.")
]
GeoipOption = Annotated[
    Path | None,
    typer.Option(
        envvar="FAR_GEOIP_DB",
        help="City database that says where nodes are; see far-mesh geoip.",
        rich_help_panel=_ROUTE_PANEL,
    ),
]
MaxHopsOption = Annotated[int | None, _route_option("Most nodes.")]
