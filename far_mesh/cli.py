"""``far-mesh``: ask a swarm, run a marketplace, see it all on one machine."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from discovery.console import EXIT_FOUND, Console, fail, quiet_libraries, run, settle_memory
from far_mesh import embed_cli, geoip_cli, probe_cli, route_cli, swarm_cli
from far_mesh.bench import cli as bench_cli
from far_mesh.marketplace import document_cli
from far_mesh.marketplace.cluster import cli as cluster_cli
from far_mesh.marketplace.configuration import cli as config_cli
from far_mesh.marketplace.ledger import cli as ledger_cli
from far_mesh.marketplace.pricing import cli as prices_cli
from far_mesh.marketplace.settlement import cli as settlement_cli
from far_mesh.marketplace.settlement import reconcile_cli
from far_mesh.marketplace.tiers import cli as tiers_cli
from far_mesh.options import (
    DiscoveryOption,
    FrequencyPenaltyOption,
    GeoipOption,
    InviteOption,
    JsonSchemaOption,
    LocalFirstOption,
    LocalLastOption,
    LocationOption,
    LogprobsOption,
    MaxDistanceOption,
    MaxHopsOption,
    MaxLatencyOption,
    MaxLoadOption,
    MaxPriceOption,
    MinPOption,
    MinTpsOption,
    ModelOption,
    NearOption,
    NoSpeculationOption,
    PeersOption,
    PreferOption,
    PrefixOption,
    PresencePenaltyOption,
    QuantizationOption,
    RegexOption,
    RegionOption,
    SeedOption,
    SwarmOption,
    TemperatureOption,
    ThreadsOption,
    TopKOption,
    TopPOption,
    TrustedOption,
    WakeNetworkOption,
)

if TYPE_CHECKING:
    from far_mesh.client import Generation, Result, Token
    from far_mesh.config import Grammar
    from far_mesh.session import Mended
    from far_mesh.trace import Trace

app = typer.Typer(
    help="Run language models on the Far Mesh swarm.", no_args_is_help=True, pretty_exceptions_enable=False
)


app.command()(route_cli.route)
app.add_typer(bench_cli.app, name="bench")
app.add_typer(cluster_cli.app, name="cluster")
app.add_typer(config_cli.app, name="config")
app.command()(embed_cli.embed)
app.add_typer(geoip_cli.app, name="geoip")
app.command()(document_cli.openapi)
app.add_typer(ledger_cli.app, name="ledger")
app.add_typer(prices_cli.app, name="prices")
app.command()(probe_cli.probe)
app.add_typer(tiers_cli.app, name="tiers")
app.command()(settlement_cli.settle)
app.add_typer(swarm_cli.app, name="swarm")
app.command()(swarm_cli.invite)
app.command()(reconcile_cli.reconcile)


@app.command()
def generate(
    context: typer.Context,
    model: ModelOption,
    prompt: Annotated[str, typer.Option(help="What to ask. A chat model gets it as a user's message.")],
    initial_peers: PeersOption = [],  # noqa: B006
    discovery: DiscoveryOption = None,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 256,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    top_k: TopKOption = 0,
    min_p: MinPOption = 0.0,
    presence_penalty: PresencePenaltyOption = 0.0,
    frequency_penalty: FrequencyPenaltyOption = 0.0,
    seed: SeedOption = None,
    logprobs: LogprobsOption = None,
    json_schema: JsonSchemaOption = None,
    regex: RegexOption = None,
    stop: Annotated[list[str], typer.Option(help="End before this text; repeatable.")] = [],  # noqa: B006
    raw: Annotated[bool, typer.Option("--raw", help="Do not apply the model's chat template.")] = False,
    priority: Annotated[str, typer.Option(help="high, normal or low: whose steps go first on a busy node.")] = "normal",
    share_prefix: Annotated[
        bool,
        typer.Option("--share-prefix", help="Let nodes reuse the beginning of this prompt with others who say so too."),
    ] = False,
    draft_model: Annotated[
        str | None,
        typer.Option(help="Small model with the same tokens that guesses ahead; default: the one the model brings."),
    ] = None,
    no_speculation: NoSpeculationOption = False,
    local_blocks_first: LocalFirstOption = 0,
    local_blocks_last: LocalLastOption = 0,
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
    receipts: Annotated[Path | None, typer.Option(help="Write the receipts here, for far-mesh verify.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Show where the time went.")] = False,
    prefix: PrefixOption = "far",
    swarm: SwarmOption = None,
    invite: InviteOption = None,
    wake_network: WakeNetworkOption = [],  # noqa: B006
    threads: ThreadsOption = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per token and line.")] = False,
) -> None:
    """Stream an answer from a swarm. No marketplace, no account: this machine talks to the nodes itself."""
    from discovery.protocol.errors import FarError
    from discovery.protocol.membership import membership_of
    from far_mesh.config import GenerationOptions, Treatment, parse_priority
    from far_mesh.entrance import Entrance
    from far_mesh.verify import check_place

    console = Console(json)
    quiet_libraries()
    try:
        options = GenerationOptions(
            max_tokens,
            temperature,
            top_p,
            seed,
            tuple(stop),
            top_k=top_k,
            min_p=min_p,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            logprobs=logprobs,
            grammar=_grammar(json_schema, regex),
        )
        treatment = Treatment(parse_priority(priority), share_prefix=share_prefix)
        entrance = Entrance.of(initial_peers, discovery, prefix, membership_of(swarm, invite))
        wake_policy = route_cli.wake_policy_of(wake_network)
        preference, geography = route_cli.preference_of(context), route_cli.geography_of(context)
        if receipts is not None:
            check_place(receipts)
    except FarError as error:
        fail(console, error)

    async def ask() -> None:
        import torch

        from far_mesh.client import Mesh
        from far_mesh.config import MeshConfig

        if threads is not None:
            torch.set_num_threads(threads)
        config = MeshConfig(
            prefix=entrance.prefix,
            membership=entrance.membership,
            wake_policy=wake_policy,
            speculation=not no_speculation,
            preference=preference,
            **geography,
        )
        joining = Mesh.join(
            model,
            await entrance.peers(),
            config,
            draft_model=draft_model,
            local_blocks_first=local_blocks_first,
            local_blocks_last=local_blocks_last,
        )
        async with await joining as mesh:
            settle_memory()
            generation = await mesh.open(
                mesh.encode(prompt, raw=raw), options, treatment=treatment, on_mended=partial(_tell_loss, console)
            )
            await _stream(console, generation, receipts, with_trace=trace)

    run(console, ask)


def _grammar(json_schema: Path | None, regex: str | None) -> Grammar | None:
    from discovery.protocol.errors import InvalidArgument
    from far_mesh.config import Grammar

    if json_schema is not None and regex is not None:
        raise InvalidArgument("an answer keeps to a JSON schema or to a regular expression, not both", param="regex")
    if json_schema is not None:
        try:
            return Grammar.json_schema(json_schema.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{json_schema} cannot be read: {error}", param="json_schema") from None
    return None if regex is None else Grammar.regex(regex)


def _logprobs(token: Token) -> dict[str, object]:
    if token.logprob is None:
        return {}
    own, *top = (
        {"id": one.id, "bytes": list(one.bytes), "logprob": one.logprob} for one in (token.logprob, *token.top)
    )
    return {"logprob": own["logprob"], "bytes": own["bytes"], "top": top}


def _tell_loss(console: Console, mended: Mended) -> None:
    blocks = f"{mended.blocks[0]}:{mended.blocks[1]}"
    if mended.waiting_for:
        sentence = f"blocks {blocks} have no node; waiting for one, {mended.seconds:.0f} s so far"
    else:
        sentence = f"blocks {blocks} were lost and are served again, after {mended.seconds:.1f} s"
    event = "waiting" if mended.waiting_for else "mended"
    console.aside(event, sentence, blocks=mended.blocks, seconds=round(mended.seconds, 3), lost=mended.lost)


async def _stream(console: Console, generation: Generation, receipts: Path | None, *, with_trace: bool) -> None:
    from far_mesh.trace import as_facts
    from far_mesh.verify import save

    try:
        async for token in generation:
            console.token(token.id, token.text, **_logprobs(token))
    finally:
        result = await generation.finish()
        if receipts is not None:
            save(result.evidence, receipts)
    traced = {"trace": as_facts(result.trace)} if with_trace else {}
    console.event("done", f"\n\n{_summary(result)}", **_done(result), **traced)
    if with_trace and not console.as_json:
        _show_trace(result.trace)


def _show_trace(trace: Trace) -> None:
    from rich.console import Console as RichConsole

    from far_mesh.trace import plot, table

    RichConsole().print(table(trace), plot(trace), sep="\n")


def _done(result: Result) -> dict[str, object]:
    return {
        "text": result.text,
        "token_ids": result.token_ids,
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "finish_reason": result.finish_reason,
        "nodes": [
            {"peer_id": done.peer_id, "wallet": done.wallet, "blocks": done.blocks, "token_layers": done.token_layers}
            for done in result.contributions
        ],
        "drafted": result.drafted,
        "accepted": result.accepted,
        "seconds": round(result.seconds, 6),
        "time_to_first_token": result.time_to_first_token,
    }


def _summary(result: Result) -> str:
    speed = result.completion_tokens / result.seconds if result.seconds else 0.0
    nodes = ", ".join(f"{done.peer_id[-6:]} {done.blocks[0]}:{done.blocks[1]}" for done in result.contributions)
    return f"{result.completion_tokens} tokens, {speed:.1f}/s, served by {nodes or 'nobody who can prove it'}"


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="What far-mesh generate --receipts wrote.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Verify receipts offline, from the file alone. Exit code 3: not all of the work is proven."""
    from discovery.protocol.errors import FarError
    from far_mesh.verify import as_facts, load, summary, table

    console = Console(json)
    try:
        report = load(file)
    except FarError as error:
        fail(console, error)
    if not json:
        from rich.console import Console as RichConsole

        RichConsole().print(table(report))
    console.event("verified", summary(report), **as_facts(report))
    if not report.is_complete:
        raise typer.Exit(EXIT_FOUND)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default FAR_HOST or 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; default FAR_PORT or 8000.")] = None,
    discovery: Annotated[
        str | None, typer.Option(help="Address of a discovery service, which names peers; default FAR_DISCOVERY.")
    ] = None,
    config: config_cli.ConfigOption = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Run the marketplace's gateway, by FAR_… variables and a file. docs/operators.md lists the settings."""
    from discovery.protocol.errors import FarError
    from far_mesh.marketplace.serve import run as run_gateway
    from far_mesh.marketplace.settings import Settings

    console = Console(json)
    flags = {"host": host, "port": port, "discovery": discovery}
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings.read(config, **given)
        url = f"http://{settings.host}:{settings.port}"

        def ready() -> None:
            settle_memory()
            console.event("ready", f"serving at {url}", url=url)

        run_gateway(settings, on_ready=ready)
    except FarError as error:
        fail(console, error)


@app.command()
def demo(
    nodes: Annotated[int, typer.Option(help="How many nodes share the model's blocks.")] = 3,
    model: ModelOption = "far-demo",
    prompt: Annotated[str, typer.Option(help="What to ask.")] = "Tell me a story about a brave rabbit.",
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 256,
    data_dir: Annotated[Path, typer.Option(help="Keys, chain state, database and logs.")] = Path("~/.far/demo"),
    port: Annotated[int, typer.Option(help="Port of the gateway on 127.0.0.1.")] = 8000,
    once: Annotated[bool, typer.Option("--once", help="End after the table.")] = False,
    json: Annotated[bool, typer.Option("--json", help="The last line of the output is one JSON object.")] = False,
) -> None:
    """The whole of Far Mesh on this machine: a swarm, a chain, a gateway, and a story that is paid for."""
    from discovery.protocol.errors import FarError
    from far_mesh.demo.config import DemoConfig

    console = Console(json)
    quiet_libraries()
    try:
        config = DemoConfig(model, prompt, max_tokens, nodes, data_dir, port, once)
    except FarError as error:
        fail(console, error)

    async def show() -> None:
        from far_mesh.demo.run import demo as run_demo

        await run_demo(config, as_json=json)

    run(console, show)


if __name__ == "__main__":
    app()
