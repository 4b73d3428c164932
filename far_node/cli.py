"""``far-node``: serve blocks of a model and be paid for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from discovery import __version__
from discovery.console import EXIT_FAILED, Console, fail, quiet_libraries, run
from far_node import (
    claim_cli,
    config_cli,
    doctor_cli,
    info_cli,
    init_cli,
    models_cli,
    peers_cli,
    register_cli,
    rewards_cli,
    service_cli,
    update_cli,
    waker_cli,
    watch_cli,
)
from far_node.options import ConfigOption, IdentityOption, JsonOption, NameOption, ask_node, identity_of

if TYPE_CHECKING:
    from discovery.protocol.errors import NotInvited
    from far_node.config import ModelOptions, NodeConfig
    from far_node.settings import NodeSettings, Place

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def far_node(
    version: Annotated[
        bool, typer.Option("--version", help="Tell which version this is.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Serve blocks of a language model to the Far Mesh swarm, and be paid for the work."""


app.add_typer(models_cli.app, name="models")
app.add_typer(rewards_cli.app, name="rewards")
app.add_typer(config_cli.app, name="config")
app.add_typer(waker_cli.app, name="waker")
app.add_typer(service_cli.app, name="service")
app.add_typer(update_cli.app, name="update")
app.command()(init_cli.init)
app.add_typer(peers_cli.app, name="peers")
app.add_typer(info_cli.app, name="info")
app.command()(register_cli.register)
app.command()(claim_cli.claim)
app.command()(doctor_cli.doctor)
app.command()(watch_cli.status)
app.command()(watch_cli.logs)
app.command()(watch_cli.metrics)

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
OffloadOption = Annotated[
    bool, _model_option("Run blocks that do not fit on the GPU on the CPU.", "--cpu-offload/--no-cpu-offload")
]

PatienceOption = Annotated[
    float | None,
    typer.Option("--drain-timeout", min=0, help="Seconds that open sessions get; default: what the node was told."),
]


@app.command()
def start(
    context: typer.Context,
    model: Annotated[
        str | None, _model_option("Model directory, hub id (owner/name) or the bundled far-demo. Needed.")
    ] = None,
    wallet: Annotated[str | None, typer.Option(help="EVM address that is paid, 0x… Needed.")] = None,
    initial_peers: Annotated[
        list[str], typer.Option(help="Multiaddr of a swarm peer, …/p2p/12D3KooW…; repeatable. Needed, or --discovery.")
    ] = [],  # noqa: B006
    discovery: Annotated[
        str | None, typer.Option(help="Address of a discovery service, which names peers of the swarm.")
    ] = None,
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
        bool,
        typer.Option("--cpu-only/--no-cpu-only", help="Do not use a GPU, as --device cpu.", rich_help_panel=_DEVICE),
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
        typer.Option(
            "--map-ports/--no-map-ports", help="Ask the router for a port (UPnP, NAT-PMP).", rich_help_panel=_NETWORK
        ),
    ] = False,
    relay: Annotated[
        bool,
        typer.Option(
            "--relay/--no-relay",
            help="No open port: be reached through the initial peers, slower.",
            rich_help_panel=_NETWORK,
        ),
    ] = False,
    prefix: Annotated[
        str, typer.Option(help="DHT prefix; swarms that share peers have each their own.", rich_help_panel=_NETWORK)
    ] = "far",
    swarm: Annotated[
        Path | None, typer.Option(help="File of a private swarm that invited this node.", rich_help_panel=_NETWORK)
    ] = None,
    invite: Annotated[
        str | None, typer.Option(help="The invitation to it, or a file that has it.", rich_help_panel=_NETWORK)
    ] = None,
    price: Annotated[
        int, typer.Option(help="Least for 1,000 token-layers, in 1e-9 FAR; less is refused.", rich_help_panel=_ROUTE)
    ] = 0,
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
    wake_url: Annotated[
        str | None,
        typer.Option(help="Where this node is woken when it sleeps; see far-node waker.", rich_help_panel=_LIFE),
    ] = None,
    idle_exit: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="End after so long without a session.", rich_help_panel=_LIFE),
    ] = None,
    receipts: Annotated[
        Path | None, typer.Option(help="Keep every receipt here, for far-node rewards history.", rich_help_panel=_LIFE)
    ] = None,
    auto_update: Annotated[
        bool,
        typer.Option(
            "--auto-update/--no-auto-update", help="Go over to newer versions between sessions.", rich_help_panel=_LIFE
        ),
    ] = False,
    update_channel: Annotated[
        str, typer.Option(help="stable, or pre for versions before their release.", rich_help_panel=_LIFE)
    ] = "stable",
    update_index: Annotated[
        str | None,
        typer.Option(help="Package index or directory of wheels; default: as pip is set up.", rich_help_panel=_LIFE),
    ] = None,
    update_releases: Annotated[
        str | None, typer.Option(help="Address or file of a signed list of releases.", rich_help_panel=_LIFE)
    ] = None,
    update_publisher: Annotated[
        str | None, typer.Option(help="Peer id that signed that list.", rich_help_panel=_LIFE)
    ] = None,
    log_level: Annotated[
        str, typer.Option(help="Least that the log keeps: debug, info, warning, error.", rich_help_panel=_LIFE)
    ] = "info",
    identity: Annotated[
        Path | None, typer.Option(help="Key file of this node, made if absent; default: ~/.far/identity.")
    ] = None,
    name: NameOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Load a range of blocks, join the swarm, announce, and serve until stopped."""
    from discovery.protocol.errors import FarError
    from far_node import settings

    console = Console(json)
    quiet_libraries()
    try:
        place = settings.Place.of(name)
        said = settings.read(_on_the_command_line(context), place, config)
    except FarError as error:
        fail(console, error)
    except settings.InvalidSettings as wrong:
        for each in wrong.errors:
            console.error(each)
        raise typer.Exit(EXIT_FAILED) from None
    if said.auto_update:
        _supervise(console, said, place)
    run(console, lambda: _start(console, said, place))


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
    identity: IdentityOption = None,
    name: NameOption = None,
    json: JsonOption = False,
) -> None:
    """Serve one more model on the running node. Its sessions go on."""
    console = Console(json)
    _change(console, identity_of(console, identity, name), "load", lambda: {"options": asdict(_model_options(context))})


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
    identity: IdentityOption = None,
    name: NameOption = None,
    json: JsonOption = False,
) -> None:
    """Serve another model in the place of one. Sessions of the old one may end first."""

    def arguments() -> dict[str, Any]:
        return {"model": old, "options": asdict(_model_options(context)), "drain_timeout": drain_timeout}

    console = Console(json)
    _change(console, identity_of(console, identity, name), "swap", arguments)


@app.command()
def unload(
    model: Annotated[str, typer.Argument(help="Public name or digest of the model that goes.")],
    drain_timeout: PatienceOption = None,
    identity: IdentityOption = None,
    name: NameOption = None,
    json: JsonOption = False,
) -> None:
    """Serve a model no longer. Its sessions may end first; the last model stays until the node stops."""
    console = Console(json)
    _change(
        console,
        identity_of(console, identity, name),
        "unload",
        lambda: {"model": model, "drain_timeout": drain_timeout},
    )


@app.command()
def stop(
    drain_timeout: PatienceOption = None,
    identity: IdentityOption = None,
    name: NameOption = None,
    json: JsonOption = False,
) -> None:
    """Let the open sessions end, then stop the node. A second stop does not wait for them."""
    from far_node.display import Story

    console = Console(json)
    story = Story(console)
    told = ask_node(
        console,
        identity_of(console, identity, name),
        "stop",
        {"drain_timeout": drain_timeout},
        on_event=lambda said: story.tell(**said),
        until_closed=True,
    )
    story.stopped(told)


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


def _supervise(console: Console, said: NodeSettings, place: Place) -> NoReturn:
    """Have the node as a child that can be replaced by one of a newer version."""
    import sys

    from discovery.protocol.errors import FarError
    from far_node.update import start

    try:
        start.run(console, said, place, sys.argv[sys.argv.index("start") + 1 :])
    except FarError as error:
        fail(console, error)


async def _start(console: Console, said: NodeSettings, place: Place) -> None:
    from discovery.hints import peers_to_join
    from far_node.logs import kept, log_path
    from far_node.settings import known_peers, node_config

    with kept(console, log_path(said.identity or place.identity), said.log_level) as telling:
        hints = await peers_to_join(known_peers(said), said.discovery)
        await _serve(telling, node_config(said, place, hints))


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
        story.stopped({"token_layers_served": 0, "drained": True})
        return
    owner: ControlServer | None = None
    why: NotInvited | None = None
    try:
        owner = await ControlServer.start(control_path(config.identity), OwnersCommands(node, departure).by_name())
        with story:
            served = await departure.outrun_by(node.begin(story.tell))
        if served is not None:
            about = facts_of(served)
            who = {"peer_id": node.peer_id, "wallet": config.wallet, "maddrs": node.maddrs}
            story.ready(about, node.reach, node.relays, config.host_maddrs, **who)
            async with moving(node, config.auto_place, story.tell):
                why = await departure.outrun_by(node.when_over())
        story.tell("leaving", sessions=node.handler.open_sessions)
        drained = await departure.take(node.drain, config.drain_timeout if why is None else 0.0)
    finally:
        await node.stop()
        if owner is not None:
            await owner.close()
    story.stopped({"token_layers_served": node.token_layers_served, "drained": drained})
    if why is not None:
        raise why


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
        told = ask_node(console, identity, command, given, on_event=lambda said: story.tell(**said))
    story.changed(command, told)


def _on_the_command_line(context: typer.Context) -> dict[str, Any]:
    """Settings that were given as flags, not those that have their defaults."""
    from far_node.settings import FIELDS

    sources = {name: context.get_parameter_source(name) for name in FIELDS if name in context.params}
    given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
    return {name: context.params[name] for name in given}


def _model_options(context: typer.Context) -> ModelOptions:
    """The flags about a model, which several commands share.

    Raises:
        InvalidArgument: one of them means nothing.
    """
    from dataclasses import fields

    from far_node.config import ModelOptions, parse_blocks
    from far_node.settings import local_model

    given = dict(context.params)
    given["model"] = local_model(given["model"])  # a running node has another idea of where it is
    given["blocks"] = parse_blocks(given["blocks"]) if given["blocks"] is not None else None
    given["cache_bytes"] = given["cache_mb"] << 20
    return ModelOptions(**{field.name: given[field.name] for field in fields(ModelOptions)})


if __name__ == "__main__":
    app()
