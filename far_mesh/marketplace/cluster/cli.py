"""``far-mesh cluster``: the whole, as a gateway sees it, for an operator at a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from discovery.console import Console, quiet_libraries, run

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.table import Table

    from far_mesh.marketplace.cluster.schemas import ClusterStatus, ModelAdvice, RebalanceAnswer, Stretch

    AnswerT = TypeVar("AnswerT", bound=BaseModel)

TIMEOUT_SECONDS = 30.0
KEY_VARIABLE = "FAR_API_KEY"

app = typer.Typer(help="The whole at a glance, and advice about it: for operators.", no_args_is_help=True)

GatewayOption = Annotated[
    str, typer.Option(envvar="FAR_GATEWAY_URL", help="Address of the gateway. It is asked with the key in FAR_API_KEY.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object.")]
LOCAL = "http://127.0.0.1:8000"


@app.command()
def status(gateway: GatewayOption = LOCAL, json: JsonOption = False) -> None:
    """Models and how they are covered, nodes, requests under way, settlement, leases and gateways."""
    console = Console(json)
    quiet_libraries()

    async def main() -> None:
        from far_mesh.marketplace.cluster.schemas import ClusterStatus

        found = await _ask(gateway, "GET", "/api/cluster/status", ClusterStatus)
        console.event("cluster", None, **found.model_dump(mode="json"))
        if not json:
            _show(tables(found))
            print(in_short(found))

    run(console, main)


@app.command()
def rebalance(
    gateway: GatewayOption = LOCAL,
    model: Annotated[str | None, typer.Option(help="Advise on this model alone.")] = None,
    replicas: Annotated[int, typer.Option(min=1, max=16, help="How many nodes each block should have.")] = 2,
    json: JsonOption = False,
) -> None:
    """Which blocks are thin, and which nodes would do more good where. Advice: nothing is changed."""
    console = Console(json)
    quiet_libraries()

    async def main() -> None:
        from far_mesh.marketplace.cluster.schemas import RebalanceAnswer

        asked = {"model_id": model, "replicas": replicas}
        found: RebalanceAnswer = await _ask(gateway, "POST", "/api/cluster/rebalance", RebalanceAnswer, asked)
        for advice in found.models:
            console.event("advice", _advice(advice), **advice.model_dump(mode="json"))

    run(console, main)


async def _ask(
    gateway: str, method: str, path: str, kind: type[AnswerT], body: dict[str, str | int | None] | None = None
) -> AnswerT:
    """Raises :class:`FarError`: no answer, one that means nothing, or a refusal in the gateway's own words."""
    import os

    import httpx
    from pydantic import ValidationError

    from discovery.protocol.errors import InvalidArgument, PeerUnavailable, ProtocolViolation, error_from_wire

    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise InvalidArgument(
            f"{KEY_VARIABLE} is not set: make a key with the scope operator, signed in with one of the wallets in "
            "FAR_OPERATORS",
            param=KEY_VARIABLE,
        )
    try:
        async with httpx.AsyncClient(base_url=gateway, timeout=TIMEOUT_SECONDS) as http:
            headers = {"authorization": f"Bearer {key.strip()}"}
            answer = await http.request(method, path, json=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise PeerUnavailable(f"no gateway answers at {gateway}: {error or type(error).__name__}") from None
    try:
        if answer.is_success:
            return kind.model_validate_json(answer.content)
        told = answer.json()["error"]
        refusal = error_from_wire(str(told["code"]), str(told["message"]))
    except (ValidationError, ValueError, KeyError, TypeError):
        raise ProtocolViolation(
            f"{gateway} does not answer as a gateway of this version: {answer.status_code}"
        ) from None
    raise refusal


# ---- in words


def in_short(found: ClusterStatus) -> str:
    """The verdict."""
    if not found.reasons:
        return f"{found.status}: {len({node.node_id for node in found.nodes})} nodes, {len(found.models)} models"
    return f"{found.status}: " + "; ".join(map(plain, found.reasons))


def tables(found: ClusterStatus) -> list[Table]:
    """What a person reads."""
    return [table for table in (_models(found), _nodes(found), _gateways(found), _settlement(found)) if table.row_count]


def plain(text: object) -> str:
    """What a stranger wrote, with nothing in it that moves a terminal's cursor."""
    return "".join(one if one.isprintable() else "?" for one in str(text))


def spans(pieces: Iterable[Stretch]) -> str:
    """``0:3 ×2, 3:8 ×1``, ends exclusive."""
    return ", ".join(f"{one.first_block}:{one.end_block} ×{one.replicas}" for one in pieces)


def _models(found: ClusterStatus) -> Table:
    table = _table("Models", "model", "blocks", "nodes", "covered", "thin", "queue", "state")
    for one in found.models:
        queue = one.queue
        waiting = "" if queue is None else f"{queue.waiting} wait, {queue.in_use}/{queue.capacity} open"
        state = "available" if one.available else one.reason or "not available"
        _row(
            table, one.model_id, one.block_count, one.active_nodes, spans(one.coverage), spans(one.thin), waiting, state
        )
    return table


def _nodes(found: ClusterStatus) -> Table:
    table = _table("Nodes", "node", "model", "blocks", "kind", "state", "load", "reliability", "ms", "region")
    for one in found.nodes:
        score = "" if one.reliability_score is None else f"{one.reliability_score:.3f}"
        latency = "" if one.latency_ms is None else f"{one.latency_ms:.1f}"
        blocks, load = f"{one.blocks[0]}:{one.blocks[1]}", f"{one.load:.0%}"
        region = one.region or ""
        _row(table, one.node_id, one.model_id, blocks, one.quantization, one.state, load, score, latency, region)
    return table


def _gateways(found: ClusterStatus) -> Table:
    table = _table("Gateways", "gateway", "state", "requests pending", "active", "holds")
    sessions = {one.gateway: one for one in found.sessions}
    lives = {one.name: one for one in found.gateways}
    for name in sorted(lives.keys() | sessions.keys()):
        life, open_ones = lives.get(name), sessions.get(name)
        state = ("alive" if life.alive else "gone") if life else "unknown"
        held = ", ".join(lease.name for lease in found.leases if lease.gateway == name and lease.held)
        counts = (open_ones.pending, open_ones.active) if open_ones else (0, 0)
        _row(table, name + (" (this)" if life and life.this else ""), state, *counts, held)
    return table


def _settlement(found: ClusterStatus) -> Table:
    table = _table("Settlement", "pending", "sent", "confirmed", "failed", "oldest", "settler")
    state = found.settlement
    if state is not None:
        oldest = "" if state.oldest_seconds is None else f"{state.oldest_seconds:.0f} s"
        _row(table, state.pending, state.sent, state.confirmed, state.failed, oldest, state.settler or "nobody")
    return table


def _advice(advice: ModelAdvice) -> str:
    lines = [
        f"{plain(advice.model_id)}: " + (f"thin: {spans(advice.thin)}" if advice.thin else "enough nodes everywhere")
    ]
    for move in advice.moves:
        there, to = move.blocks, move.to
        lines.append(f"  {plain(move.node_id)} serves {there[0]}:{there[1]} and would do more good at {to[0]}:{to[1]}")
        lines.append(f"    its owner: {plain(move.command)}")
    if advice.lacking:
        lines.append(f"  more nodes are needed for {spans(advice.lacking)}")
    return "\n".join(lines)


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _row(table: Table, *cells: object) -> None:
    from rich.text import Text

    table.add_row(*(Text(plain(cell)) for cell in cells))


def _show(found: Iterable[Table]) -> None:
    from rich.console import Console as Terminal

    terminal = Terminal()
    for table in found:
        terminal.print(table)
