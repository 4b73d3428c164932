"""``far-node info``: what this machine is, what it could serve, and what that would earn."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from discovery.console import Console
from far_node.rewards_cli import command

if TYPE_CHECKING:
    from far_node.capacity import Room
    from far_node.earnings import Market, Serving

app = typer.Typer(help="About this machine.", no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def info() -> None:
    """About this machine."""


@app.command()
def hardware(
    model: Annotated[list[str], typer.Option(help="A model directory to reckon with; repeatable.")] = [],  # noqa: B006
    device: Annotated[str, typer.Option(help="auto, cpu, mps or cuda:N.")] = "auto",
    reserve_gb: Annotated[float, typer.Option(min=0, help="GiB that stay free.")] = 2.0,
    cache_mb: Annotated[int, typer.Option("--cache-mb", min=1, help="Attention cache in MiB.")] = 1024,
    gateway: Annotated[
        str | None, typer.Option(envvar="FAR_GATEWAY_URL", help="Marketplace whose prices and demand are asked.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure memory, processor, disk and network, and reckon what of which model fits and what it would earn."""
    with command(json) as console:
        from far_node.capacity import GIB, room_on
        from far_node.doctor.measure import cards
        from far_node.earnings import estimate
        from far_node.hardware import find_device, memory_of
        from far_node.machine import disk_speed, link_speed, memory_speed, processor
        from far_node.models.store import ModelStore

        found = find_device(device)
        memory, speed = memory_of(found), memory_speed(found)
        told: dict[str, Any] = {
            "device": found,
            "memory_free_bytes": memory.free_bytes,
            "memory_total_bytes": memory.total_bytes,
            "memory_bytes_per_second": None if speed is None else round(speed),
            "cards": [asdict(card) for card in cards()],
            "processor": asdict(processor()),
            "disk": asdict(disk_speed(ModelStore().directory)),
            "network": None if gateway is None else asdict(link_speed(gateway)),
        }
        markets, why_not = _markets(gateway)
        room = room_on(memory, reserve_bytes=int(reserve_gb * GIB), cache_bytes=cache_mb << 20)
        could = []
        for name, place in _models(model).items():
            for serving in _could_serve(name, place, found, room, speed):
                earned = estimate(serving, markets.get(serving.model_id))
                could.append({**asdict(serving), "earnings": earned.document()})
        told |= {"could_serve": could, "prices_unknown": why_not}
        if json:
            console.event("hardware", **told)
        else:
            _show(console, told)


def _markets(gateway: str | None) -> tuple[dict[str, Market], str | None]:
    """What is on sale, by the name of the model; and why nothing is known of it, if nothing is."""
    from discovery.protocol.errors import FarError
    from far_node.earnings import Market
    from far_node.rewards.gateway import Gateway

    if gateway is None:
        return {}, "no --gateway was named"
    try:
        with Gateway(gateway) as market:
            sold = market.on_sale()
    except FarError as error:
        return {}, error.message
    named = {
        one.id: Market(one.id, one.completion_price_units, one.fee_bps, one.utilisation, one.active_nodes)
        for one in sold
    }
    return named, None if named else f"{gateway} sells no model"


def _models(named: list[str]) -> dict[str, Path]:
    """Models whose configuration is on this disk, by their names."""
    from far_node.blocks.source import BUNDLED_MODEL, bundled_model_path
    from far_node.models.store import ModelStore

    store = ModelStore()
    kept = {name: store.place_of(record) for name, record in store.records().items() if record.file is None}
    directories = {Path(text).expanduser().resolve() for text in named}
    return {BUNDLED_MODEL: bundled_model_path(), **kept, **{path.name: path for path in directories}}


def _could_serve(name: str, place: Path, device: str, room: Room, speed: float | None) -> list[Serving]:
    from discovery.protocol.announcement import Dtype, Quantization
    from discovery.protocol.errors import FarError
    from far_node.blocks.sizes import block_sizes
    from far_node.blocks.source import ModelSource
    from far_node.earnings import could_serve

    dtype: Dtype = "float32" if device == "cpu" else "bfloat16"
    kinds: tuple[Quantization, ...] = ("none",) if device == "mps" else ("none", "int8", "nf4")
    source = ModelSource(name, place, "")
    try:
        sizes = {kind: block_sizes(source, kind, dtype, device) for kind in kinds}
    except FarError:  # what cannot be cut cannot be served
        return []
    return could_serve(name, sizes, room, speed)


def _show(console: Console, told: dict[str, Any]) -> None:
    from rich.console import Console as Terminal
    from rich.table import Table

    from far_node.capacity import readable_bytes

    def rate(value: float | None) -> str:
        return "not measured" if value is None else f"{value / 1e9:.2f} GB/s"

    cpu, disk, link = told["processor"], told["disk"], told["network"]
    free, total = readable_bytes(told["memory_free_bytes"]), readable_bytes(told["memory_total_bytes"])
    facts = Table.grid(padding=(0, 2))
    facts.add_row("device", f"{told['device']}, {free} of {total} free, {rate(told['memory_bytes_per_second'])}")
    for card in told["cards"]:
        facts.add_row("GPU", f"{card['name']}, driver {card['driver']}")
    facts.add_row("processor", f"{cpu['name']}, {cpu['cores']} cores ({cpu['threads']} threads)")
    facts.add_row("", " ".join(cpu["features"]) or "no features that matter here")
    speeds = f"writes {rate(disk['write_bytes_per_second'])}, reads {rate(disk['read_bytes_per_second'])}"
    facts.add_row("disk", f"{readable_bytes(disk['free_bytes'])} free, {speeds}")
    if link is None:
        facts.add_row("network", "not measured: no --gateway was named")
    elif link["reason"] is not None:
        facts.add_row("network", f"{link['url']} does not answer: {link['reason']}")
    else:
        down = link["download_bytes_per_second"]
        least = "" if down is None else f", at least {down * 8 / 1e6:.1f} Mbit/s down; up was not measured"
        facts.add_row("network", f"{link['round_trip_ms']:.1f} ms to {link['url']}{least}")
    terminal = Terminal()
    terminal.print(facts)
    table = Table(
        "model", "weights", "blocks", "memory", "tokens/s at most", "FAR/h if busy", "FAR/h at today's demand"
    )
    for one in told["could_serve"]:
        earned, speed = one["earnings"], one["tokens_per_second"]
        fast = "-" if speed is None else f"{speed:.1f}"
        money = [_far(earned[name]) for name in ("busy_units", "now_units")]
        blocks = f"{one['blocks']} of {one['block_count']}"
        table.add_row(one["model_id"], one["quantization"], blocks, readable_bytes(one["weight_bytes"]), fast, *money)
    terminal.print(table)
    reasons = dict.fromkeys(filter(None, (one["earnings"]["reason"] for one in told["could_serve"])))
    if told["prices_unknown"]:
        terminal.print(f"What it earns is not known: {told['prices_unknown']}.")
    elif reasons:
        terminal.print("Where no earnings are shown: " + "; ".join(reasons) + ".")
    for line in next(
        (one["earnings"]["assumptions"] for one in told["could_serve"] if one["earnings"]["assumptions"]), ()
    ):
        terminal.print(f"  assumed: {line}")


def _far(units: int | None) -> str:
    return "unknown" if units is None else f"{units / 1e9:.6f}"
