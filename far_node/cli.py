"""``far-node``: serve blocks of a model and be paid for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from discovery.console import Console, fail, quiet_libraries, run
from far_node import models_cli, register_cli, rewards_cli

if TYPE_CHECKING:
    from far_node.config import ModelOptions, NodeConfig

app = typer.Typer(
    help="Serve blocks of a language model to the Far Mesh swarm, and be paid for the work.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(models_cli.app, name="models")
app.add_typer(rewards_cli.app, name="rewards")
app.command()(register_cli.register)

_MODEL, _DEVICE, _CROWD, _NETWORK, _ROUTE, _LIFE = (
    "Model",
    "Device and memory",
    "Many sessions",
    "Network",
    "What routes are planned with",
    "Life",
)


def _model_option(help: str, *flags: str, **more: Any) -> Any:
    return typer.Option(*flags, help=help, rich_help_panel=_MODEL, **more)


ModelIdOption = Annotated[str | None, _model_option("Public name of the model; default: directory name or hub id.")]
RegistryOption = Annotated[str | None, _model_option("Address of a layer registry to download from; default: the hub.")]
BlocksOption = Annotated[
    str | None, _model_option("Blocks to serve, a:b with b exclusive; default: as many as fit, where they lack most.")
]
NumBlocksOption = Annotated[int | None, _model_option("How many blocks to serve, where the swarm lacks them most.")]
QuantizationOption = Annotated[
    str | None, _model_option("none, int8 or nf4 (4 bits); default: int8 on a CPU, int8 or nf4 on a GPU by what fits.")
]
DtypeOption = Annotated[str | None, _model_option("float32, bfloat16 or float16; default by device.")]
AttentionOption = Annotated[
    str | None, _model_option("sdpa (flash attention where the GPU has it) or eager; default: what suits the model.")
]
ContextOption = Annotated[int | None, _model_option("Positions of the longest session; default: the model's own.")]
CacheOption = Annotated[int, _model_option("Budget of the attention cache in MiB.", "--cache-mb", min=1)]
OffloadOption = Annotated[bool, _model_option("Run blocks that do not fit on the GPU on the CPU.", "--cpu-offload")]

IdentityOption = Annotated[Path, typer.Option(help="Key file of this node; made by start if absent.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]
PatienceOption = Annotated[
    float | None,
    typer.Option("--drain-timeout", min=0, help="Seconds that open sessions get; default: what the node was told."),
]
DEFAULT_IDENTITY = Path("~/.far/identity")


@app.command()
def start(
    context: typer.Context,
    model: Annotated[str, _model_option("Model directory, hub id (owner/name) or the bundled far-demo.")],
    wallet: Annotated[str, typer.Option(help="EVM address that is paid, 0x…")],
    initial_peers: Annotated[list[str], typer.Option(help="Multiaddr of a swarm peer, …/p2p/12D3KooW…; repeatable.")],
    model_id: ModelIdOption = None,
    registry: RegistryOption = None,
    blocks: BlocksOption = None,
    num_blocks: NumBlocksOption = None,
    quantization: QuantizationOption = None,
    dtype: DtypeOption = None,
    attention: AttentionOption = None,
    context_length: ContextOption = None,
    cache_mb: CacheOption = 1024,
    cpu_offload: OffloadOption = False,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, mps or cuda:N; default: a GPU if any.", rich_help_panel=_DEVICE)
    ] = None,
    gpu: Annotated[
        int | None, typer.Option(min=0, help="Index of the CUDA device, as --device cuda:N.", rich_help_panel=_DEVICE)
    ] = None,
    cpu_only: Annotated[
        bool, typer.Option("--cpu-only", help="Do not use a GPU, as --device cpu.", rich_help_panel=_DEVICE)
    ] = False,
    reserve_gb: Annotated[
        float,
        typer.Option(min=0, help="GiB that an automatic number of blocks leaves free.", rich_help_panel=_DEVICE),
    ] = 2.0,
    gpu_memory_fraction: Annotated[
        float, typer.Option(help="Most of the GPU's memory to take, 0 to 1.", rich_help_panel=_DEVICE)
    ] = 1.0,
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads for the computation; default: torch's choice.", rich_help_panel=_DEVICE),
    ] = None,
    max_sessions: Annotated[int, typer.Option(help="Sessions open at once.", rich_help_panel=_CROWD)] = 64,
    max_sessions_per_client: Annotated[int, typer.Option(help="Of these, by one client.", rich_help_panel=_CROWD)] = 64,
    max_batch_size: Annotated[
        int, typer.Option(help="Sessions' steps computed in one pass.", rich_help_panel=_CROWD)
    ] = 16,
    prefill_chunk: Annotated[
        int, typer.Option(help="Positions of a long prompt computed at a time.", rich_help_panel=_CROWD)
    ] = 512,
    queue_size: Annotated[int, typer.Option(help="Steps that may wait.", rich_help_panel=_CROWD)] = 256,
    queue_timeout: Annotated[float, typer.Option(help="Seconds a step may wait.", rich_help_panel=_CROWD)] = 30.0,
    step_timeout: Annotated[
        float, typer.Option(help="Seconds a step may take once it has begun.", rich_help_panel=_CROWD)
    ] = 120.0,
    idle_timeout: Annotated[
        float, typer.Option(help="Seconds after which a silent session is closed.", rich_help_panel=_CROWD)
    ] = 300.0,
    prefix_cache_mb: Annotated[
        int, typer.Option(help="Memory in MiB for the beginnings of prompts seen before.", rich_help_panel=_CROWD)
    ] = 128,
    host_maddr: Annotated[list[str], typer.Option(help="Where to listen; repeatable.", rich_help_panel=_NETWORK)] = [  # noqa: B006
        "/ip4/0.0.0.0/tcp/31330"
    ],
    public_addr: Annotated[
        list[str], typer.Option(help="Address others reach us at, IP:PORT or multiaddr.", rich_help_panel=_NETWORK)
    ] = [],  # noqa: B006
    map_ports: Annotated[
        bool,
        typer.Option("--map-ports", help="Ask the router for a port (UPnP, NAT-PMP).", rich_help_panel=_NETWORK),
    ] = False,
    relay: Annotated[
        bool,
        typer.Option(
            "--relay", help="No open port: be reached through the initial peers, slower.", rich_help_panel=_NETWORK
        ),
    ] = False,
    prefix: Annotated[
        str, typer.Option(help="DHT prefix; a private swarm has its own.", rich_help_panel=_NETWORK)
    ] = "far",
    price: Annotated[int, typer.Option(help="Asked for 1,000 token-layers, in 1e-9 FAR.", rich_help_panel=_ROUTE)] = 0,
    region: Annotated[
        str | None, typer.Option(help="Announced as where the node is, such as eu-west.", rich_help_panel=_ROUTE)
    ] = None,
    location: Annotated[
        str | None, typer.Option(help="LAT,LON, announced in whole degrees.", rich_help_panel=_ROUTE)
    ] = None,
    drain_timeout: Annotated[
        float, typer.Option(help="Seconds that open sessions get when the node leaves.", rich_help_panel=_LIFE)
    ] = 30.0,
    auto_place: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES", help="Look this often whether other blocks need the node more.", rich_help_panel=_LIFE
        ),
    ] = None,
    receipts: Annotated[
        Path | None, typer.Option(help="Keep every receipt here, for far-node rewards history.", rich_help_panel=_LIFE)
    ] = None,
    identity: IdentityOption = DEFAULT_IDENTITY,
    json: JsonOption = False,
) -> None:
    """Load a range of blocks, join the swarm, announce, and serve until stopped."""
    from discovery.protocol.errors import FarError
    from discovery.protocol.ids import check_wallet
    from far_node.capacity import GIB
    from far_node.config import NodeConfig, choose_device, parse_location, parse_public_address
    from far_node.limits import Limits

    console = Console(json)
    quiet_libraries()
    try:
        config = NodeConfig(
            model=_model_options(context),
            wallet=check_wallet(wallet),
            initial_peers=tuple(initial_peers),
            device=choose_device(device, gpu, cpu_only),
            threads=threads,
            identity=identity,
            host_maddrs=tuple(host_maddr),
            public_maddrs=tuple(parse_public_address(address) for address in public_addr),
            prefix=prefix,
            map_ports=map_ports,
            relay=relay,
            reserve_bytes=int(reserve_gb * GIB),
            gpu_memory_fraction=gpu_memory_fraction,
            drain_timeout=drain_timeout,
            auto_place=auto_place,
            receipts=receipts,
            price_units=price,
            region=region,
            location=None if location is None else parse_location(location),
            limits=Limits(
                max_batch_size=max_batch_size,
                prefill_chunk=prefill_chunk,
                queue_size=queue_size,
                queue_timeout=queue_timeout,
                step_timeout=step_timeout,
                max_sessions=max_sessions,
                max_sessions_per_client=max_sessions_per_client,
                idle_timeout=idle_timeout,
                prefix_cache_bytes=prefix_cache_mb << 20,
            ),
        )
    except FarError as error:
        fail(console, error)
    run(console, lambda: _serve(console, config))


@app.command()
def load(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Model directory, hub id (owner/name) or the bundled far-demo.")],
    model_id: ModelIdOption = None,
    registry: RegistryOption = None,
    blocks: BlocksOption = None,
    num_blocks: NumBlocksOption = None,
    quantization: QuantizationOption = None,
    dtype: DtypeOption = None,
    attention: AttentionOption = None,
    context_length: ContextOption = None,
    cache_mb: CacheOption = 1024,
    cpu_offload: OffloadOption = False,
    identity: IdentityOption = DEFAULT_IDENTITY,
    json: JsonOption = False,
) -> None:
    """Serve one more model on the running node. Its sessions go on."""
    _change(Console(json), identity, "load", lambda: {"options": asdict(_model_options(context))})


@app.command()
def swap(
    context: typer.Context,
    old: Annotated[str, typer.Argument(help="Public name or digest of the model that goes.")],
    model: Annotated[str, typer.Argument(help="The model that comes: directory, hub id or far-demo.")],
    model_id: ModelIdOption = None,
    registry: RegistryOption = None,
    blocks: BlocksOption = None,
    num_blocks: NumBlocksOption = None,
    quantization: QuantizationOption = None,
    dtype: DtypeOption = None,
    attention: AttentionOption = None,
    context_length: ContextOption = None,
    cache_mb: CacheOption = 1024,
    cpu_offload: OffloadOption = False,
    drain_timeout: PatienceOption = None,
    identity: IdentityOption = DEFAULT_IDENTITY,
    json: JsonOption = False,
) -> None:
    """Serve another model in the place of one. Sessions of the old one may end first."""

    def arguments() -> dict[str, Any]:
        return {"model": old, "options": asdict(_model_options(context)), "drain_timeout": drain_timeout}

    _change(Console(json), identity, "swap", arguments)


@app.command()
def unload(
    model: Annotated[str, typer.Argument(help="Public name or digest of the model that goes.")],
    drain_timeout: PatienceOption = None,
    identity: IdentityOption = DEFAULT_IDENTITY,
    json: JsonOption = False,
) -> None:
    """Serve a model no longer. Its sessions may end first; the last model stays until the node stops."""
    _change(Console(json), identity, "unload", lambda: {"model": model, "drain_timeout": drain_timeout})


@app.command()
def stop(
    drain_timeout: PatienceOption = None, identity: IdentityOption = DEFAULT_IDENTITY, json: JsonOption = False
) -> None:
    """Let the open sessions end, then stop the node. A second stop does not wait for them."""
    from far_node.display import Story

    console = Console(json)
    story = Story(console)
    told = _ask(
        console,
        identity,
        "stop",
        {"drain_timeout": drain_timeout},
        on_event=lambda said: story.tell(**said),
        until_closed=True,
    )
    story.stopped(told)


@app.command()
def status(identity: IdentityOption = DEFAULT_IDENTITY, json: JsonOption = False) -> None:
    """Tell what the node on this machine serves, and how busy it is."""
    from far_node.display import print_status

    console = Console(json)
    told = _ask(console, identity, "status", timeout=_STATUS_SECONDS)
    if json:
        console.event("status", **told)
    else:
        print_status(told)


@app.command()
def plan(
    model: Annotated[str, typer.Argument(help="Model directory, hub id (owner/name) or the bundled far-demo.")],
    memory_gb: Annotated[list[float], typer.Option(min=0, help="Memory of a machine in GiB; once for each.")],
    quantization: Annotated[str, typer.Option(help="none, int8 or nf4.")] = "int8",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "bfloat16",
    reserve_gb: Annotated[float, typer.Option(min=0, help="GiB of each machine that stay free.")] = 2.0,
    registry: RegistryOption = None,
    json: JsonOption = False,
) -> None:
    """Divide a model among your own machines, by their memory."""
    from discovery.protocol.errors import FarError
    from far_node.capacity import GIB, share_blocks
    from far_node.config import ModelOptions
    from far_node.loading import find

    console = Console(json)
    quiet_libraries()
    try:
        # checked by ModelOptions
        options = ModelOptions(model, quantization=quantization, dtype=dtype, registry=registry)  # type: ignore[arg-type]
        (sizes,) = find(options, "cpu").sizes.values()
        shares = share_blocks([int((gb - reserve_gb) * GIB) for gb in memory_gb], len(sizes), max(sizes))
    except FarError as error:
        fail(console, error)
    first = 0
    for gb, share in zip(memory_gb, shares, strict=True):
        place = f"--blocks {first}:{first + share}" if share else "nothing"
        console.event("share", f"{gb:g} GiB: {place}", memory_gb=gb, blocks=[first, first + share] if share else None)
        first += share


_STATUS_SECONDS = 10.0


async def _serve(console: Console, config: NodeConfig) -> None:
    from far_node.commands import OwnersCommands, facts_of
    from far_node.control import ControlServer, control_path
    from far_node.departure import Departure
    from far_node.display import Story
    from far_node.node import Node
    from far_node.placement import moving

    departure, story = Departure(), Story(console)
    departure.listen()
    story.tell("starting", model=config.model.model)
    node = await departure.outrun_by(Node.join(config))
    if node is None:
        return story.stopped({"token_layers_served": 0, "drained": True})
    owner: ControlServer | None = None
    try:
        owner = await ControlServer.start(control_path(config.identity), OwnersCommands(node, departure).by_name())
        with story:
            served = await departure.outrun_by(node.begin(story.tell))
        if served is not None:
            about = facts_of(served)
            who = {"peer_id": node.peer_id, "wallet": config.wallet, "maddrs": node.maddrs}
            story.ready(about, node.relays, config.host_maddrs, **who)
            async with moving(node, config.auto_place, story.tell):
                await departure.when_asked()
        story.tell("leaving", sessions=node.handler.open_sessions)
        drained = await departure.take(node.drain, config.drain_timeout)
    finally:
        await node.stop()
        if owner is not None:
            await owner.close()
    return story.stopped({"token_layers_served": node.token_layers_served, "drained": drained})


def _change(console: Console, identity: Path, command: str, arguments: Callable[[], dict[str, Any]]) -> None:
    """Ask the running node to serve something else, and tell what comes of it."""
    from discovery.protocol.errors import FarError
    from far_node.display import Story

    story = Story(console)
    try:
        given = arguments()
    except FarError as error:
        fail(console, error)
    with story:
        told = _ask(console, identity, command, given, on_event=lambda said: story.tell(**said))
    story.changed(command, told)


def _ask(
    console: Console, identity: Path, command: str, arguments: Mapping[str, Any] = {}, **more: Any
) -> dict[str, Any]:
    from discovery.protocol.errors import FarError
    from far_node.control import ask, control_path

    try:
        return ask(control_path(identity), command, arguments, **more)
    except FarError as error:
        fail(console, error)


def _model_options(context: typer.Context) -> ModelOptions:
    """The flags about a model, which several commands share.

    Raises:
        InvalidArgument: one of them means nothing.
    """
    from dataclasses import fields

    from far_node.config import ModelOptions, parse_blocks

    given = dict(context.params)
    path = Path(given["model"]).expanduser()
    if given["model"] and (path.is_dir() or path.suffix == ".gguf"):  # a running node has another idea of where it is
        given["model"] = str(path.absolute())
    given["blocks"] = parse_blocks(given["blocks"]) if given["blocks"] is not None else None
    given["cache_bytes"] = given["cache_mb"] << 20
    return ModelOptions(**{field.name: given[field.name] for field in fields(ModelOptions)})


if __name__ == "__main__":
    app()
