"""``far-mesh probe``: look at the nodes of a swarm, and tell discovery services what was seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from discovery.console import Console, fail, quiet_libraries, run, until_stopped
from far_mesh.options import DiscoveryOption, InviteOption, PeersOption, PrefixOption, SwarmOption, ThreadsOption

if TYPE_CHECKING:
    from discovery.probe.observation import Observation

_NEW_IDS_SECONDS = 3600.0
_PAUSE_SECONDS, _AWAY_SECONDS = 5.0, 30.0


def probe(
    initial_peers: PeersOption = [],  # noqa: B006
    discovery: DiscoveryOption = None,
    model: Annotated[
        list[str], typer.Option(help="Model of which nodes are asked; most of them know the answer. Repeatable.")
    ] = [],  # noqa: B006
    weights: Annotated[
        list[str],
        typer.Option("--weights", help="Model whose weights are all here, so that answers are known. Repeatable."),
    ] = [],  # noqa: B006
    report_to: Annotated[
        list[str], typer.Option(help="Address of a discovery service that takes our reports; repeatable.")
    ] = [],  # noqa: B006
    identity: Annotated[Path, typer.Option(help="Key that reports are signed with; made if absent.")] = Path(
        "~/.far/prober"
    ),
    seconds: Annotated[float, typer.Option(min=60, help="Between two looks at a node, on average.")] = 900.0,
    once: Annotated[bool, typer.Option("--once", help="Look at all nodes now, once, and end.")] = False,
    host_maddr: Annotated[list[str], typer.Option(help="Where nodes may hand on to us; repeatable.")] = [  # noqa: B006
        "/ip4/0.0.0.0/tcp/0"
    ],
    public_addr: Annotated[list[str], typer.Option(help="Multiaddr that nodes reach us at; repeatable.")] = [],  # noqa: B006
    prefix: PrefixOption = "far",
    swarm: SwarmOption = None,
    invite: InviteOption = None,
    threads: ThreadsOption = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per node and line.")] = False,
) -> None:
    """Look whether nodes can be reached, how far away they are, how quick, and whether what they compute is right."""
    from discovery.protocol.errors import FarError
    from discovery.protocol.membership import membership_of
    from far_mesh.entrance import Entrance

    console = Console(json)
    quiet_libraries()
    try:
        entrance = Entrance.of(initial_peers, discovery, prefix, membership_of(swarm, invite))
    except FarError as error:
        fail(console, error)

    async def look() -> None:
        import asyncio
        import random
        import time

        import torch

        from discovery.dht.identity import load_identity
        from discovery.probe.plan import Budget, Turns
        from far_mesh.probe.exam import Exam
        from far_mesh.probe.prober import Prober
        from far_mesh.probe.tell import Teller
        from far_mesh.probe.vantage import a_vantage

        if threads is not None:
            torch.set_num_threads(threads)
        ours = load_identity(identity)
        tellers = [Teller(ours.key, entrance.prefix, url) for url in report_to]
        exams = [await asyncio.to_thread(Exam, one, weights=False) for one in model]
        exams += [await asyncio.to_thread(Exam, one, weights=True) for one in weights]
        chance = random.SystemRandom()
        turns = Turns(0.0 if once else seconds, chance)
        prober = Prober({exam.digest: exam for exam in exams}, turns, Budget(), chance)
        console.event("ready", f"prober {ours.peer_id}", peer_id=ours.peer_id)

        async def go_round() -> None:
            until = time.monotonic() + _NEW_IDS_SECONDS
            async with a_vantage(entrance, host_maddr, public_addr) as (vantage, peer):
                while time.monotonic() < until:
                    seen = await prober.round(vantage, peer.board)
                    for one in seen:
                        console.event("probed", in_words(one), **one.model_dump(mode="json"))
                    for teller in tellers:
                        await teller.tell(seen)
                    if once:
                        return
                    await asyncio.sleep(_PAUSE_SECONDS)

        async def go_on() -> None:
            while True:
                try:
                    await go_round()
                except FarError as error:
                    if once:
                        raise
                    console.aside("away", error.message, code=error.code)
                    await asyncio.sleep(_AWAY_SECONDS)
                if once:
                    return

        going = asyncio.create_task(go_on())
        stopping = asyncio.create_task(until_stopped(_nothing))
        await asyncio.wait({going, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not going.done():
            going.cancel()
            await asyncio.wait([going])
        else:
            going.result()

    run(console, look)


async def _nothing() -> None:
    """There is nothing to be said before we go."""


def in_words(seen: Observation) -> str:
    """What was seen of a node, on one line."""
    said = [seen.peer_id, seen.reach.value]
    if seen.round_trip_ms is not None:
        said.append(f"{seen.round_trip_ms:.1f} ms away")
    said.append(seen.fate.value if seen.verdict is None else seen.verdict.value)
    if seen.block_ms is not None:
        said.append(f"{seen.block_ms:.2f} ms a block")
    if seen.claimed_block_ms is not None:
        said.append(f"{seen.claimed_block_ms:.2f} announced")
    if seen.receipt is False:
        said.append("its receipt is wrong")
    if seen.reason:
        said.append(seen.reason)
    return ", ".join(said)
