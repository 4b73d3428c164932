"""The demo's walk, from an empty directory to a story that is paid for."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
import webbrowser
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from discovery.protocol.errors import FarError
from far_mesh.demo.config import DEPOSIT_UNITS, DemoConfig, NodePlan, plan_nodes
from far_mesh.demo.processes import ProcessGroup
from far_mesh.demo.report import far, report, sum_line, sums_up, table
from far_mesh.demo.steps import Steps, gather_or_cancel
from far_mesh.demo.store import DemoStore
from far_mesh.demo.tools import has_display
from far_mesh.demo.town import (
    DEPLOYER,
    Town,
    model_argument,
    start_bootstrap,
    start_chain,
    start_gateway,
    start_node,
)
from far_mesh.demo.user import DemoUser, Told
from far_mesh.marketplace.chain.client import Chain, Release
from far_mesh.marketplace.chain.wallet import ChainWallet
from far_mesh.marketplace.dashboard.site import is_built
from far_mesh.marketplace.serve import listening
from far_node.blocks.source import Part, block_count_of, find_model


class DoesNotAddUp(FarError):
    """The money of the demo's request is not where it should be. That is a bug."""

    code = "does_not_add_up"


async def demo(config: DemoConfig, *, as_json: bool) -> None:
    """Run the demo until it is done (``once``) or told to stop by SIGINT or SIGTERM.

    Raises:
        FarError: whatever stands in the way, in words; everything that was started has ended.
        KeyboardInterrupt: it was told to stop before there was a story.
    """
    told = asyncio.Event()
    work = asyncio.create_task(_demo(config, told, as_json))
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):  # the clean-up is not to be hurried
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        work.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await work
    except asyncio.CancelledError:
        if not told.is_set():
            raise KeyboardInterrupt from None


async def _demo(config: DemoConfig, told: asyncio.Event, as_json: bool) -> None:
    config = dataclasses.replace(config, model=model_argument(config.model))
    screen = Console(stderr=as_json, highlight=False)
    source = find_model(config.model, part=Part())
    plans = plan_nodes(config.nodes, block_count_of(source))
    listening("127.0.0.1", config.port).close()  # before time is spent on the rest
    async with AsyncExitStack() as stack:
        store = stack.enter_context(DemoStore(config.data_dir))
        with Steps(screen) as steps:
            town = await _build(config, store, stack, plans, source.id, steps)
            chain = Chain(town.rpc_url, town.contracts.chain_id, town.contracts.token, town.contracts.escrow)
            stack.push_async_callback(chain.close)
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=120.0))
            user = DemoUser(town.gateway_url, store.secret("user"), http)
            balance = await _enter_market(user, chain, steps)
        screen.print(f"[dim]{user.address} has {far(balance)} FAR in the escrow[/]\n", soft_wrap=True)
        story = _story(config, town, user, chain, screen, as_json)
        if config.once:
            await _unless_a_child_dies(town.group, story)
            told.set()
        else:
            await _stay_up(config, town, user, story, told, screen)


async def _build(
    config: DemoConfig,
    store: DemoStore,
    stack: AsyncExitStack,
    plans: tuple[NodePlan, ...],
    model_id: str,
    steps: Steps,
) -> Town:
    """All that can start side by side does; the stack ends it in the opposite order."""
    store.logs.mkdir(parents=True, exist_ok=True)
    rpc_url, contracts = await steps.show("local chain and contracts", start_chain(store, stack))
    group = await stack.enter_async_context(ProcessGroup(store.logs))
    bootstrap = await steps.show("bootstrap peer", start_bootstrap(store, group))
    gateway = start_gateway(config, store, group, rpc_url=rpc_url, contracts=contracts, bootstrap=bootstrap)
    nodes = [steps.show(_describe(plan), start_node(config, store, group, plan, bootstrap)) for plan in plans]
    url, *ready = await gather_or_cancel(steps.show("gateway", gateway), *nodes)
    return Town(rpc_url, contracts, bootstrap, tuple(ready), str(url), model_id, group)


def _describe(plan: NodePlan) -> str:
    first, end = plan.blocks
    return f"{plan.name}: blocks {first}–{end - 1}" + (
        "" if plan.quantization == "none" else f" in {plan.quantization}"
    )


async def _enter_market(user: DemoUser, chain: Chain, steps: Steps) -> int:
    await steps.show("signing in with a wallet", user.log_in())
    bank = ChainWallet(chain, DEPLOYER)
    return await steps.show("paying 10 FAR into the escrow", user.pay_in(chain, bank, DEPOSIT_UNITS))


async def _story(config: DemoConfig, town: Town, user: DemoUser, chain: Chain, screen: Console, as_json: bool) -> None:
    result, release = await _tell(config, town, user, chain, screen)
    stays = not config.once and is_built()
    _show(result, release, screen, as_json, f"{town.gateway_url}/" if stays else None)


async def _stay_up(
    config: DemoConfig,
    town: Town,
    user: DemoUser,
    story: Coroutine[Any, Any, None],
    told: asyncio.Event,
    screen: Console,
) -> None:
    """The swarm outlives its marketplace, and the demo whatever ends in it: that is told, and the rest goes on."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_report_ends(town.group, screen))
        try:
            await story
        except FarError as error:
            screen.print(f"[red]the story ended early:[/] {error.message}")
        told.set()
        link = await _link(town, user)
        screen.print(_invitation(config, town, user, link), soft_wrap=True)
        if link is not None and screen.is_terminal and has_display():
            await asyncio.to_thread(webbrowser.open, link)


async def _report_ends(group: ProcessGroup, screen: Console) -> None:
    async for failure in group.failures():
        screen.print(f"[red]{failure.message}[/]; the others go on", soft_wrap=True)
    await asyncio.Event().wait()


async def _tell(
    config: DemoConfig, town: Town, user: DemoUser, chain: Chain, screen: Console
) -> tuple[dict[str, Any], Release]:
    screen.print(f"[bold]> {config.prompt}[/]")
    told: Told = await user.ask(
        town.model_id, config.prompt, config.max_tokens, lambda text: screen.out(text, end="", highlight=False)
    )
    screen.print("\n")
    request = await user.settled(told.done["request_id"])
    batch_tx = request["settlement"]["batch_tx"]
    if batch_tx is None:
        raise DoesNotAddUp(f"nothing was settled: {request['settlement']['error'] or request['settlement']['status']}")
    release = await chain.settled(batch_tx, user.address, request["held_units"])
    facts = {
        "rpc_url": town.rpc_url,
        "token": town.contracts.token,
        "escrow": town.contracts.escrow,
        "batch_tx": batch_tx,
    }
    return report(told, request, town.nodes, release, facts), release


async def _link(town: Town, user: DemoUser) -> str | None:
    """The playground, signed in as the user: with a token of its own in the fragment, which no server gets to see."""
    try:
        return f"{town.gateway_url}/playground#session={await user.new_token()}" if is_built() else None
    except FarError:  # the gateway has ended, which was told
        return None


def _show(result: dict[str, Any], release: Release, screen: Console, as_json: bool, dashboard: str | None) -> None:
    screen.print(table(result, release, dashboard))
    screen.print(sum_line(result, release), soft_wrap=True)
    screen.print(
        f"{result['completion_tokens']} tokens, first after {result['time_to_first_token_s']:.2f} s, "
        f"then {result['tokens_per_s']:.1f}/s; paid by batch {result['chain']['batch_tx']}",
        soft_wrap=True,
    )
    if as_json:
        print(json.dumps(result), flush=True)
    if not sums_up(result, release):
        raise DoesNotAddUp("paid + fee + refund is not what was held, or the chain says something else")


def _invitation(config: DemoConfig, town: Town, user: DemoUser, link: str | None) -> str:
    program = Path(sys.executable).with_name("far-mesh")
    command = os.path.relpath(program) if program.exists() else program.name
    look = "" if is_built() else "The dashboard is not built here: make dashboard, and start the demo again.\n\n"
    if link is not None:
        look = f"Ask it yourself in a browser, signed in as this user for an hour:\n\n  {link}\n\n"
    return (
        f"\n{look}The gateway stays up at {town.gateway_url} until Ctrl-C. Try it:\n\n"
        f"  export FAR_TOKEN={user.token}\n"
        f'  curl {town.gateway_url}/v1/chat/completions -H "Authorization: Bearer $FAR_TOKEN" \\\n'
        f"    -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"model": "{town.model_id}", "messages": [{{"role": "user", '
        f'"content": "What is the capital of Japan?"}}]}}\'\n\n'
        f"  OPENAI_BASE_URL={town.gateway_url}/v1 OPENAI_API_KEY=$FAR_TOKEN python your_openai_program.py\n\n"
        f"Or ask the swarm itself, without the marketplace:\n\n"
        f"  {command} generate --model {config.model} --prompt 'Hello!' \\\n    --initial-peers {town.bootstrap}\n"
    )


async def _unless_a_child_dies(group: ProcessGroup, work: Coroutine[Any, Any, None]) -> None:
    """Do the work; a process that ends meanwhile ends it with the reason."""
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_first_failure(group))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise watching.result()
        working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _first_failure(group: ProcessGroup) -> FarError:
    return await anext(group.failures())
