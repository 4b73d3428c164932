"""``far-mesh bench``: the commands."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from discovery.console import EXIT_FOUND, Console, fail, quiet_libraries, run, settle_memory
from far_mesh.options import (
    DiscoveryOption,
    InviteOption,
    ModelOption,
    NoSpeculationOption,
    PeersOption,
    PrefixOption,
    SwarmOption,
    ThreadsOption,
)

if TYPE_CHECKING:
    from rich.table import Table

    from far_mesh.bench.failover import Kill
    from far_mesh.client import Mesh
    from far_mesh.entrance import Entrance

app = typer.Typer(help="Measure a swarm: latency, throughput, failover.", no_args_is_help=True)

TokensOption = Annotated[int, typer.Option(min=2, help="Longest answer.")]
LengthOption = Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Same seed, same prompts.")]
OutOption = Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Measure = Callable[["Mesh"], Awaitable[dict[str, Any]]]


@app.command()
def latency(
    initial_peers: PeersOption = [],  # noqa: B006
    discovery: DiscoveryOption = None,
    model: ModelOption = "far-demo",
    prompt_length: Annotated[list[int], typer.Option(min=1, help="Tokens of a prompt; repeatable.")] = [16, 64, 256],  # noqa: B006
    tokens: TokensOption = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Answers for each length of prompt.")] = 5,
    seed: SeedOption = 0,
    no_speculation: NoSpeculationOption = False,
    prefix: PrefixOption = "far",
    swarm: SwarmOption = None,
    invite: InviteOption = None,
    threads: ThreadsOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Time to the first token by length of prompt, and time per token, of one answer after the other."""
    console = _begin(json, threads, out)
    entrance = _entrance(console, initial_peers, discovery, prefix, swarm, invite)

    async def measure(mesh: Mesh) -> dict[str, Any]:
        from far_mesh.bench.latency import latency as of
        from far_mesh.bench.progress import shown

        with shown() as on_progress:
            return await of(
                mesh, prompt_lengths=prompt_length, tokens=tokens, rounds=rounds, seed=seed, on_progress=on_progress
            )

    async def main() -> None:
        from far_mesh.bench.report import latency_table

        async with await _join(model, entrance, speculation=not no_speculation) as mesh:
            result = await _measured("latency", mesh, measure)
        _tell(console, result, latency_table(result), out)

    run(console, main)


@app.command()
def throughput(
    initial_peers: PeersOption = [],  # noqa: B006
    discovery: DiscoveryOption = None,
    model: ModelOption = "far-demo",
    streams: Annotated[list[int], typer.Option(min=1, max=1024, help="Answers at once; repeatable.")] = [1, 4, 8, 16],  # noqa: B006
    prompt_length: LengthOption = 32,
    tokens: TokensOption = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Times for each number of streams.")] = 2,
    seed: SeedOption = 0,
    no_speculation: NoSpeculationOption = False,
    prefix: PrefixOption = "far",
    swarm: SwarmOption = None,
    invite: InviteOption = None,
    threads: ThreadsOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """Tokens per second of several answers at once."""
    console = _begin(json, threads, out)
    entrance = _entrance(console, initial_peers, discovery, prefix, swarm, invite)

    async def measure(mesh: Mesh) -> dict[str, Any]:
        from far_mesh.bench.progress import shown
        from far_mesh.bench.throughput import throughput as of

        with shown() as on_progress:
            return await of(
                mesh,
                streams=streams,
                prompt_length=prompt_length,
                tokens=tokens,
                rounds=rounds,
                seed=seed,
                on_progress=on_progress,
            )

    async def main() -> None:
        from far_mesh.bench.report import throughput_table

        async with await _join(model, entrance, speculation=not no_speculation) as mesh:
            result = await _measured("throughput", mesh, measure)
        _tell(console, result, throughput_table(result), out)

    run(console, main)


@app.command()
def failover(
    initial_peers: PeersOption = [],  # noqa: B006
    discovery: DiscoveryOption = None,
    kill_command: Annotated[
        str | None,
        typer.Option(help="What kills a node of your swarm, such as 'my-script {peer_id}'; with peers only."),
    ] = None,
    model: ModelOption = "far-demo",
    parts: Annotated[int, typer.Option(min=1, help="Ranges of blocks of a swarm of our own.")] = 2,
    copies: Annotated[int, typer.Option(min=1, help="Nodes for each of its ranges.")] = 2,
    prompt_length: LengthOption = 32,
    tokens: TokensOption = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Nodes to be killed, one after the other.")] = 5,
    seed: SeedOption = 0,
    no_speculation: NoSpeculationOption = False,
    prefix: PrefixOption = "far",
    swarm: SwarmOption = None,
    invite: InviteOption = None,
    threads: ThreadsOption = None,
    out: OutOption = None,
    json: JsonOption = False,
) -> None:
    """The pause when a random node of the route is killed. Without peers: in a swarm of our own on this machine.

    Exit code 3: an answer did not come out as it does without a loss.
    """
    from discovery.protocol.errors import FarError, InvalidArgument
    from discovery.protocol.membership import membership_of
    from far_mesh.entrance import Entrance

    console = _begin(json, threads, out)
    theirs: tuple[Kill, Entrance] | None = None
    try:
        if bool(initial_peers or discovery or swarm) != (kill_command is not None):
            raise InvalidArgument(
                "a swarm of yours (--initial-peers, --discovery or --swarm) needs a --kill-command, and a command a "
                "swarm"
            )
        if kill_command is not None:
            from far_mesh.bench.failover import kill_command as of_words

            theirs = of_words(kill_command), Entrance.of(initial_peers, discovery, prefix, membership_of(swarm, invite))
    except FarError as error:
        fail(console, error)

    async def figures(mesh: Mesh, kill: Kill, restore: Callable[[], Awaitable[None]] | None) -> dict[str, Any]:
        from far_mesh.bench.failover import failover as of
        from far_mesh.bench.progress import shown

        with shown() as on_progress:
            return await of(
                mesh,
                kill,
                restore=restore,
                prompt_length=prompt_length,
                tokens=tokens,
                rounds=rounds,
                seed=seed,
                on_progress=on_progress,
            )

    async def in_theirs(kill: Kill, entrance: Entrance) -> dict[str, Any]:
        async with await _join(model, entrance, speculation=not no_speculation) as mesh:
            return await _measured("failover", mesh, lambda mesh: figures(mesh, kill, None))

    async def in_ours() -> dict[str, Any]:
        from far_mesh.bench.town import a_town
        from far_node.blocks.cut import read_config, shape_of
        from far_node.blocks.source import find_model

        block_count = shape_of(read_config(find_model(model))).block_count
        with tempfile.TemporaryDirectory(prefix="far-bench-") as folder:
            async with (
                a_town(Path(folder), model, block_count, parts, copies) as town,
                await _join(model, Entrance.of([town.initial_peer]), speculation=not no_speculation) as mesh,
            ):
                await town.until_seen(mesh)
                return await _measured(
                    "failover", mesh, lambda mesh: figures(mesh, town.kill, lambda: town.restore(mesh))
                )

    async def main() -> None:
        from far_mesh.bench.report import failover_summary, failover_table

        result = await (in_ours() if theirs is None else in_theirs(*theirs))
        _tell(console, result, failover_table(result), out, failover_summary(result))
        if result["same_text"] != 1:
            raise typer.Exit(EXIT_FOUND)

    run(console, main)


def _begin(json: bool, threads: int | None, out: Path | None) -> Console:
    from discovery.protocol.errors import FarError
    from far_mesh.verify import check_place

    console = Console(json)
    quiet_libraries()
    try:
        if out is not None:
            check_place(out)
    except FarError as error:
        fail(console, error)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return console


def _entrance(
    console: Console,
    initial_peers: list[str],
    discovery: str | None,
    prefix: str,
    swarm: Path | None,
    invite: str | None,
) -> Entrance:
    from discovery.protocol.errors import FarError
    from discovery.protocol.membership import membership_of
    from far_mesh.entrance import Entrance

    try:
        return Entrance.of(initial_peers, discovery, prefix, membership_of(swarm, invite))
    except FarError as error:
        fail(console, error)


async def _join(model: str, entrance: Entrance, *, speculation: bool) -> Mesh:
    from far_mesh.client import Mesh
    from far_mesh.config import MeshConfig

    config = MeshConfig(prefix=entrance.prefix, membership=entrance.membership, speculation=speculation)
    return await Mesh.join(model, await entrance.peers(), config)


async def _measured(kind: str, mesh: Mesh, measure: Measure) -> dict[str, Any]:
    from far_mesh.bench.report import whole

    settle_memory()
    return await whole(kind, mesh, await measure(mesh))


def _tell(
    console: Console, result: dict[str, Any], table: Table, out: Path | None, sentence: str | None = None
) -> None:
    from far_mesh.bench.report import write

    if out is not None:
        write(result, out)
    if not console.as_json:
        from rich.console import Console as RichConsole

        RichConsole().print(table)
    console.event("result", sentence, **result)
