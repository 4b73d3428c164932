"""Nodes are killed, stopped and cut off in the middle of texts: does every text come out, and how long is the pause?

    python -m benchmarks.failover [--faults 200] [--round-trip 0.02] [--tokens 48] [--seed 1] [--out benchmarks/results]

Six nodes (three ranges of blocks of the bundled model, two of each), a bootstrap peer and a client are processes of
their own on hosts of an emulated wide-area network. Texts are generated one after the other; in each, at a random
token, one or two random nodes of the route are killed (SIGKILL), stopped (SIGSTOP) or cut off the network, now and then
also the one that took their place. What was lost is started again, or goes on, and gets six seconds before the next
text: for five of them libp2p dials no address at which it has just failed. Every text is
compared with the undisturbed one. The pause is the longest time between two tokens, less the median of that text.

The command fails if a text comes out otherwise than it should, or is refused though each range had a node left, or
refused with another error than ``no_route``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import uvloop

from benchmarks.support.report import commit, keep
from benchmarks.support.town import CLIENT_HOST, FIRST_NODE_HOST, WanTown
from benchmarks.support.wan import Wan
from discovery.dht.p2p import CHECK_SECONDS
from discovery.protocol.errors import FarError
from far_mesh.client import Mesh
from far_mesh.config import GenerationOptions, MeshConfig
from tests.support.swarm import Process

MODEL = "far-demo"
SPANS = ((0, 3), (3, 6), (6, 8))
REPLICAS = 2
PROMPT = "Once upon a time there was a little dog who wanted to see the sea. " * 3
KINDS = ("kill", "stop", "cut")
SETTLE_SECONDS = 6.0


@dataclass
class Seat:
    """A place for a node: who sits there now."""

    host: int
    span: tuple[int, int]
    process: Process
    harm: str = ""


@dataclass
class Told:
    """One text."""

    faults: list[str]
    at_token: int
    pause: float = 0.0
    typical: float = 0.0
    mended: list[float] = field(default_factory=list)
    same: bool = False
    error: str = ""
    had_cover: bool = True
    seconds: float = 0.0
    paid: float = 0.0


class Saboteur:
    """Harms nodes, and puts things right again."""

    def __init__(self, town: WanTown, chance: random.Random) -> None:
        self._town, self._chance = town, chance
        self._seats = [
            Seat(FIRST_NODE_HOST + number, span, town.node_at(FIRST_NODE_HOST + number, MODEL, span))
            for number, span in enumerate(SPANS * REPLICAS)
        ]
        for seat in self._seats:
            seat.process.wait_until_ready()

    def harm(self, peer_id: str) -> str:
        """Do something to a node."""
        seat = next(seat for seat in self._seats if seat.process.peer_id == peer_id)
        seat.harm = self._chance.choice(KINDS)
        match seat.harm:
            case "kill":
                seat.process.kill()
            case "stop":
                for process in seat.process.family():
                    process.suspend()
            case "cut":
                self._town.wan.change(seat.host, cut=True)
        return f"{seat.harm} {seat.span[0]}:{seat.span[1]}"

    def has_cover(self) -> bool:
        """Whether each range has a node that is not harmed."""
        return {seat.span for seat in self._seats if not seat.harm} == set(SPANS)

    def mend(self) -> None:
        """All six serve again."""
        for seat in self._seats:
            match seat.harm:
                case "kill":
                    seat.process = self._town.node_at(seat.host, MODEL, seat.span)
                case "stop":
                    for process in seat.process.family():
                        process.resume()
                case "cut":
                    self._town.wan.change(seat.host, cut=False)
        for seat in self._seats:
            if seat.harm == "kill":
                seat.process.wait_until_ready()
            seat.harm = ""


async def one_text(
    mesh: Mesh,
    ids: list[int],
    tokens: int,
    sabotage: tuple[int, int, bool],
    saboteur: Saboteur,
    expected: list[int],
    chance: random.Random,
) -> Told:
    """Generate, do harm at a token, and look at what comes out."""
    at_token, count, also_next = sabotage
    told, got, times = Told([], at_token), list[int](), [time.monotonic()]
    try:
        generation = await mesh.open(ids, GenerationOptions(max_tokens=tokens))
        try:
            async for token in generation:
                got.append(token.id)
                times.append(time.monotonic())
                if len(got) == at_token:
                    peers = chance.sample([hop.peer_id for hop in generation.hops], count)
                    told.faults += [await asyncio.to_thread(saboteur.harm, peer) for peer in peers]
                    times[-1] = time.monotonic()
                    known = {hop.peer_id for hop in generation.hops}
                elif also_next and len(got) > at_token and len(told.faults) == count:
                    fresh = [hop.peer_id for hop in generation.hops if hop.peer_id not in known]
                    if fresh:
                        told.faults.append("its replacement: " + await asyncio.to_thread(saboteur.harm, fresh[0]))
                        times[-1] = time.monotonic()
        finally:
            result = await generation.finish()
        told.paid = sum(done.token_layers for done in result.contributions) / max(1, result.expected_token_layers)
        told.mended = [mended.seconds for mended in generation.mended]
    except FarError as error:
        told.error = error.code
    gaps = [after - before for before, after in pairwise(times[1:])]
    told.seconds = times[-1] - times[0]
    told.same = got == expected[: len(got)] and (len(got) == len(expected) or bool(told.error))
    if gaps:
        told.typical = statistics.median(gaps)
        told.pause = max(gaps) - told.typical
    return told


async def course(town: WanTown, given: argparse.Namespace) -> dict[str, Any]:
    """All texts."""
    chance = random.Random(given.seed)
    saboteur = Saboteur(town, chance)
    config = MeshConfig()
    told: list[Told] = []
    async with await Mesh.join(MODEL, town.initial_peers, config) as mesh:
        ids = mesh.encode(PROMPT, raw=True)
        undisturbed = await mesh.open(ids, GenerationOptions(max_tokens=given.tokens))
        expected = [token.id async for token in undisturbed]
        await undisturbed.finish()
        faults = 0
        while faults < given.faults:
            at_token = chance.randint(1, len(expected) - 2)
            sabotage = at_token, chance.choice((1, 1, 2)), chance.random() < 0.2
            one = await one_text(mesh, ids, given.tokens, sabotage, saboteur, expected, chance)
            faults += len(one.faults)
            one.had_cover = saboteur.has_cover()
            told.append(one)
            print(json.dumps(vars(one)), flush=True)
            await asyncio.to_thread(saboteur.mend)
            await asyncio.sleep(SETTLE_SECONDS)
    finished = [one for one in told if not one.error]
    pauses = [one.pause for one in finished]
    return {
        "texts": len(told),
        "faults": faults,
        "prompt_tokens": len(ids),
        "finished_with_the_same_text": sum(one.same for one in finished),
        "refused": {one.error: sum(other.error == one.error for other in told) for one in told if one.error},
        "refused_though_there_was_cover": sum(bool(one.error) and one.had_cover for one in told),
        "wrong": sum(not one.same for one in told),
        "silent_host_found_after_s": config.suspect_after + CHECK_SECONDS,
        "pause_s": _spread(pauses),
        "mending_s": _spread([seconds for one in finished for seconds in one.mended]),
        "longest_text_s": round(max(one.seconds for one in told), 1),
        "typical_token_s": round(statistics.median(one.typical for one in finished), 4),
        "paid_share_least": round(min(one.paid for one in finished), 4),
        "paid_share_most": round(max(one.paid for one in finished), 4),
    }


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values) or [0.0]
    named = {"median": statistics.median(ordered), "p95": ordered[int(0.95 * len(ordered))], "most": ordered[-1]}
    return {name: round(value, 3) for name, value in named.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--round-trip", type=float, default=0.02, help="seconds between two hosts")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    torch.set_num_threads(1)
    of_commit = commit()
    hosts = FIRST_NODE_HOST + REPLICAS * len(SPANS)
    with (
        tempfile.TemporaryDirectory() as name,
        Wan(hosts, given.round_trip, 100e6) as wan,
        wan.inside(CLIENT_HOST),
        WanTown(Path(name), wan) as town,
    ):
        results = uvloop.run(course(town, given))
    command = (
        f"python -m benchmarks.failover --faults {given.faults} --round-trip {given.round_trip} "
        f"--tokens {given.tokens} --seed {given.seed}"
    )
    keep(given.out, "failover", command, of_commit, results)
    print(json.dumps(results, indent=2))
    refused_in_vain = results["refused_though_there_was_cover"] or set(results["refused"]) - {"no_route"}
    if results["wrong"] or refused_in_vain:
        sys.exit("not every text came out")


if __name__ == "__main__":
    main()
