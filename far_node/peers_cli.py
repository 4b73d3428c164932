"""``far-node peers``: who is in the swarm, and how far away."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from discovery.console import Console, quiet_libraries, run
from far_node.options import ConfigOption, JsonOption, NameOption

if TYPE_CHECKING:
    from discovery.protocol.membership import Membership
    from far_node.neighbours import Neighbour, Pinged

app = typer.Typer(help="Who is in the swarm, and how far away.", pretty_exceptions_enable=False)

PeersOption = Annotated[
    list[str],
    typer.Option(help="Multiaddr of a swarm peer; repeatable; default: as the settings say.", show_default=False),
]
ModelOption = Annotated[str | None, typer.Option(help="Only nodes of this model: its name or digest.")]
PrefixOption = Annotated[str | None, typer.Option(help="DHT prefix; a private swarm has its own.")]


@app.callback(invoke_without_command=True)
def peers(
    context: typer.Context,
    initial_peers: PeersOption = [],  # noqa: B006
    model: ModelOption = None,
    prefix: PrefixOption = None,
    name: NameOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """List the nodes of the swarm by model: their blocks, how they are reached, and when they last said so."""
    if context.invoked_subcommand is not None:
        return
    console = Console(json)
    quiet_libraries()

    async def show() -> None:
        from far_node.neighbours import chosen, visiting

        async with visiting(*await _swarm(initial_peers, prefix, name, config)) as visitor:
            nodes = chosen([signed.announcement for signed in await visitor.board.all_nodes()], model, None)
        if not nodes:
            console.event("nobody", "no such node is in the swarm" if model else "nobody is in the swarm", count=0)
        elif json:
            for node in nodes:
                console.event("peer", **node.facts(time.time()))
        else:
            _print_nodes(nodes)

    run(console, show)


@app.command()
def ping(
    peer_id: Annotated[str | None, typer.Argument(help="Only this node.")] = None,
    initial_peers: PeersOption = [],  # noqa: B006
    model: ModelOption = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Questions to each node.")] = 5,
    prefix: PrefixOption = None,
    name: NameOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Measure the round trip to each node, as a client would: directly, or through its relay."""
    console = Console(json)
    quiet_libraries()

    async def show() -> None:
        from discovery.protocol.ids import check_peer_id
        from far_node.neighbours import chosen, visiting
        from far_node.neighbours import ping as ask

        wanted = None if peer_id is None else check_peer_id(peer_id)
        async with visiting(*await _swarm(initial_peers, prefix, name, config)) as visitor:
            nodes = [signed.announcement for signed in await visitor.board.all_nodes()]
            found = await ask(visitor.transport, chosen(nodes, model, wanted), count)
        if not found:
            console.event("nobody", "no such node is in the swarm", count=0)
        elif json:
            for one in found:
                console.event("pinged", **one.facts())
        else:
            print_times(found)

    run(console, show)


async def _swarm(
    initial_peers: list[str], prefix: str | None, name: str | None, config: Path | None
) -> tuple[tuple[str, ...], str, Membership | None]:
    """Whom to join through, the prefix and the private swarm that are given, or else those of the node's settings.

    Raises:
        InvalidArgument: neither names a peer.
        PeerUnavailable: a discovery service is to name them, and does not.
        MembershipInvalid: the private swarm's file or the invitation cannot be read.
    """
    from discovery.hints import peers_to_join
    from discovery.protocol.errors import InvalidArgument
    from far_node.settings import Place, check, gather, known_peers, membership_in

    given = {"initial_peers": tuple(initial_peers), "prefix": prefix}
    said = gather({key: value for key, value in given.items() if value}, Place.of(name), config)
    found, _ = check(said, needed=False)
    membership = membership_in(found)
    found_peers = await peers_to_join(known_peers(found), found.discovery)
    if not found_peers:
        raise InvalidArgument("pass --initial-peers: the address of a bootstrap peer of the swarm")
    return found_peers, found.prefix if membership is None else membership.charter.swarm, membership


def _print_nodes(nodes: list[Neighbour]) -> None:
    from rich.console import Console as Terminal
    from rich.table import Table

    table = Table("model", "blocks", "node", "weights", "reached", "state", "version", "last seen")
    for column in table.columns:
        column.overflow = "fold"
    now = time.time()
    for node in nodes:
        facts = node.facts(now)
        first, end = facts["blocks"]
        span = f"{first}:{end} of {facts['block_count']}"
        words = (facts["quantization"], facts["reached"], facts["state"], plain(facts["software"]))
        table.add_row(plain(facts["model_id"]), span, facts["peer_id"], *words, f"{facts['seen_seconds']} s ago")
    Terminal().print(table)


def print_times(found: list[Pinged]) -> None:
    """A table for people, and below it why nodes did not answer."""
    from rich.console import Console as Terminal
    from rich.table import Table

    table = Table("node", "model", "reached", "answers", "min ms", "median ms", "p95 ms")
    for column in table.columns[:2]:
        column.overflow = "fold"
    for column in table.columns[2:]:
        column.no_wrap = True
    for one in found:
        facts = one.facts()
        times = ("-" if facts[name] is None else f"{facts[name]:.1f}" for name in ("min_ms", "median_ms", "p95_ms"))
        answers = f"{facts['answered']} of {facts['asked']}"
        names = (facts["peer_id"], plain(facts["model_id"]), facts["reached"])
        table.add_row(*names, answers, *times)
    terminal = Terminal()
    terminal.print(table)
    for one in found:
        if one.reason is not None:
            peer_id = one.neighbour.announcement.peer_id
            terminal.print(f"{peer_id}: {plain(one.reason)}", soft_wrap=True, highlight=False)


def plain(text: str) -> str:
    """What a stranger wrote, with nothing in it that moves a terminal's cursor or colours its text."""
    from rich.markup import escape

    return escape("".join(letter if letter.isprintable() else "�" for letter in text))
