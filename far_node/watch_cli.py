"""``far-node status``, ``logs`` and ``metrics``: what the node on this machine does, and what it did."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from discovery.console import EXIT_INTERRUPTED, Console, fail
from far_node.options import ANSWER_SECONDS, IdentityOption, JsonOption, NameOption, ask_node, identity_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rich.console import Group

    from far_node.logs import Entry
    from far_node.standing import Standing

LOOK_SECONDS = 60.0


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    discovery: Annotated[
        str | None, typer.Option(help="Discovery service to ask for the score; default: the one that the node knows.")
    ] = None,
    identity: IdentityOption = None,
    name: NameOption = None,
    json: JsonOption = False,
) -> None:
    """Tell what the node on this machine serves, how busy it is, and how others have seen it."""
    console = Console(json)
    where, look = identity_of(console, identity, name), _Look(discovery)
    if watch:
        try:
            _watch(console, where, interval, look)
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None
    told = _status_of(console, where)
    standing = look.at(told)
    if json:
        console.event("status", **told, standing=standing.facts())
    else:
        from far_node.display import print_status

        print_status(told, standing)


def logs(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    since: Annotated[str | None, typer.Option(help="Not what is older: 10m, 2h, 3d or 2026-03-01T12:00.")] = None,
    level: Annotated[str, typer.Option(help="Not what is less: debug, info, warning, error, critical.")] = "debug",
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="At most so many from the past; 0: all.")] = 100,
    identity: IdentityOption = None,
    name: NameOption = None,
    json: JsonOption = False,
) -> None:
    """Show what the node on this machine has logged. With --json its lines as they are."""
    from collections import deque

    from discovery.protocol.errors import FarError
    from far_node.logs import LogReader, Wanted, log_path, parse_level, parse_since

    console = Console(json)
    try:
        wanted = Wanted(None if since is None else parse_since(since), parse_level(level))
        reader = LogReader(log_path(identity_of(console, identity, name)))
    except FarError as error:
        fail(console, error)
    try:
        _show(deque(filter(wanted.has, reader.so_far()), lines or None), json)
        if follow:
            _show(filter(wanted.has, reader.follow()), json)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        reader.close()


def metrics(
    table: Annotated[bool, typer.Option("--table", help="For people, in the place of Prometheus.")] = False,
    identity: IdentityOption = None,
    name: NameOption = None,
    json: JsonOption = False,
) -> None:
    """The numbers of the node on this machine, as Prometheus reads them."""
    console = Console(json)
    told = _status_of(console, identity_of(console, identity, name))
    if json:
        from far_node.metrics import samples

        for metric, labels, value in samples(told):
            console.event("metric", name=metric, labels=labels, value=value)
    elif table:
        from far_node.display import print_metrics
        from far_node.metrics import samples

        print_metrics(samples(told))
    else:
        from far_node.metrics import exposition

        typer.echo(exposition(told), nl=False)


def _status_of(console: Console, identity: Path) -> dict[str, Any]:
    return ask_node(console, identity, "status", timeout=ANSWER_SECONDS)


class _Look:
    """How a discovery service sees the node, asked for once in a while: that at ``url``, or else the node's own."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._last: tuple[float, Standing] | None = None

    def at(self, told: dict[str, Any]) -> Standing:
        """The standing of the node that has told this."""
        import asyncio

        from far_node.standing import standing_of

        if self._last is None or time.monotonic() - self._last[0] > LOOK_SECONDS:
            url = self._url or told.get("discovery")  # which a node of an earlier version does not tell
            self._last = time.monotonic(), asyncio.run(standing_of(told["peer_id"], url))
        return self._last[1]


def _watch(console: Console, identity: Path, interval: float, look: _Look) -> None:
    """Show the status again and again; ends when the node does, with its error."""
    if console.as_json:
        while True:
            told = _status_of(console, identity)
            console.event("status", **told, standing=look.at(told).facts())
            time.sleep(interval)
    from rich.live import Live

    from far_node.display import status_view

    def view() -> Group:
        told = _status_of(console, identity)
        return status_view(told, look.at(told))

    with Live(view(), auto_refresh=False) as shown:
        while True:
            time.sleep(interval)
            shown.update(view(), refresh=True)


def _show(entries: Iterable[Entry], json: bool) -> None:
    for entry in entries:
        print(entry.line if json else entry.in_words(), flush=True)
