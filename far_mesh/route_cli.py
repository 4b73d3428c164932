"""``far-mesh route``, and what the options say by which every command says which route it wants."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from discovery.console import Console, fail, quiet_libraries, run
from far_mesh.options import (
    DiscoveryOption,
    GeoipOption,
    InviteOption,
    LocationOption,
    MaxDistanceOption,
    MaxHopsOption,
    MaxLatencyOption,
    MaxLoadOption,
    MaxPriceOption,
    MinTpsOption,
    ModelOption,
    NearOption,
    PeersOption,
    PreferOption,
    PrefixOption,
    QuantizationOption,
    RegionOption,
    SwarmOption,
    TrustedOption,
)

if TYPE_CHECKING:
    from pathlib import Path

    from discovery.geo import Point
    from discovery.web.outbound import Policy
    from far_mesh.config import Preference
    from far_mesh.route import Explanation

_PATIENCE_SECONDS = 2.0


class Geography(TypedDict):
    """Of a :class:`far_mesh.config.MeshConfig`."""

    location: Point | None
    geoip_db: Path | None


def preference_of(context: typer.Context) -> Preference:
    """What the options of a command say.

    Raises:
        InvalidArgument: one of them means nothing.
    """
    from discovery.geo import parse_point
    from far_mesh.config import Preference

    given = context.params
    return Preference(
        goal=given["prefer"],
        max_price=given["max_price"],
        max_latency=given["max_latency"],
        region=given["region"],
        quantization=frozenset(given["quantization"]),
        trusted_only=frozenset(given["trusted_only"]),
        min_tps=given["min_tps"],
        max_load=given["max_load"],
        max_hops=given["max_hops"],
        near=None if given["near"] is None else parse_point(given["near"], "near"),
        max_distance_km=given["max_distance_km"],
    )


def wake_policy_of(networks: list[str]) -> Policy | None:
    """Where nodes that sleep may be called besides public addresses over TLS; None: nowhere else.

    Raises:
        InvalidArgument: one of them is no network.
    """
    from ipaddress import ip_network

    from discovery.protocol.errors import InvalidArgument
    from discovery.web.outbound import Policy

    try:
        allowed = tuple(ip_network(one) for one in networks)
    except ValueError as error:
        raise InvalidArgument(f"--wake-network: {error}", param="wake_network") from None
    return Policy(frozenset(range(1, 65_536)), allowed, http=True) if allowed else None


def geography_of(context: typer.Context) -> Geography:
    """What the options of a command say of where things are.

    Raises:
        InvalidArgument: one of them means nothing.
    """
    from discovery.geo import parse_point

    location = context.params["location"]
    return {
        "location": None if location is None else parse_point(location),
        "geoip_db": context.params["geoip_db"],
    }


def route(
    context: typer.Context,
    model: ModelOption,
    initial_peers: PeersOption = [],  # noqa: B006
    discovery: DiscoveryOption = None,
    prefer: PreferOption = "fastest",
    max_price: MaxPriceOption = None,
    max_latency: MaxLatencyOption = None,
    region: RegionOption = None,
    quantization: QuantizationOption = [],  # noqa: B006
    trusted_only: TrustedOption = [],  # noqa: B006
    min_tps: MinTpsOption = None,
    max_load: MaxLoadOption = None,
    max_hops: MaxHopsOption = None,
    near: NearOption = None,
    max_distance_km: MaxDistanceOption = 1000.0,
    location: LocationOption = None,
    geoip_db: GeoipOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say of every other node why it is not in it.")] = False,
    prefix: PrefixOption = "far",
    swarm: SwarmOption = None,
    invite: InviteOption = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show the route that a session would be opened on now, and what it takes. Nothing is computed."""
    from discovery.protocol.errors import FarError
    from discovery.protocol.membership import membership_of
    from far_mesh.entrance import Entrance

    console = Console(json)
    quiet_libraries()
    try:
        entrance = Entrance.of(initial_peers, discovery, prefix, membership_of(swarm, invite))
        preference, geography = preference_of(context), geography_of(context)
    except FarError as error:
        fail(console, error)

    async def show() -> None:
        from far_mesh.client import model_facts
        from far_mesh.config import MeshConfig
        from far_mesh.opener import SessionOpener, Swarm
        from far_node.blocks.cut import read_config
        from far_node.blocks.source import ENDS, find_model

        source = await asyncio.to_thread(lambda: find_model(model, part=ENDS))
        facts = model_facts(source, read_config(source))
        config = MeshConfig(prefix=entrance.prefix, membership=entrance.membership, preference=preference, **geography)
        joined = await Swarm.join(await entrance.peers(), config)
        try:
            found = await SessionOpener(joined, facts).explain(_PATIENCE_SECONDS)
        finally:
            await joined.close()
        console.event("route", in_words(found, explain), **as_facts(found, explain))

    run(console, show)


def as_facts(found: Explanation, explain: bool) -> dict[str, Any]:
    """A route in JSON; times in milliseconds, prices in 1e-9 FAR for 1,000 token-layers."""
    facts: dict[str, Any] = {
        "hops": [
            {
                "peer_id": each.hop.node.peer_id,
                "wallet": each.hop.node.wallet,
                "blocks": each.hop.blocks,
                "quantization": each.hop.node.quantization,
                "region": each.hop.node.region,
                "link_ms": round(each.link_ms, 3),
                "compute_ms": round(each.compute_ms, 3),
                "price_units": each.price_units,
            }
            for each in found.hops
        ],
        "back_ms": round(found.back_ms, 3),
        "ms_per_token": round(found.ms_per_token, 3),
        "price_units": round(found.price_units, 3),
        "exact": found.exact,
    }
    if explain:
        facts["others"] = [
            {"peer_id": other.node.peer_id, "blocks": other.node.blocks, "why": other.why} for other in found.reasons
        ]
    return facts


def in_words(found: Explanation, explain: bool) -> str:
    """The same for people."""
    rows = [["node", "blocks", "weights", "region", "way ms", "blocks ms", "price"]]
    for each in found.hops:
        node, times = each.hop.node, (f"{each.link_ms:.1f}", f"{each.compute_ms:.1f}")
        blocks = "{}:{}".format(*each.hop.blocks)
        rows.append([node.peer_id, blocks, node.quantization, node.region or "-", *times, str(each.price_units)])
    rows.append(["back to the client", "", "", "", f"{found.back_ms:.1f}", "", ""])
    total = f"{found.ms_per_token:.1f} ms per token, {found.price_units:g} units for 1,000 token-layers"
    if not found.exact:
        total += "; the limits left too much to look at, and there may be a better one"
    lines = [*_columns(rows), "", total]
    if explain and found.reasons:
        others = [[other.node.peer_id, "{}:{}".format(*other.node.blocks), other.why] for other in found.reasons]
        lines += ["", *_columns([["not in it", "blocks", "why"], *others])]
    return "\n".join(lines)


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
