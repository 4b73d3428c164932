"""What do nodes gain that lie, and what becomes of honest ones beside them?

    python -m benchmarks.liars [--swarms 40] [--nodes 48] [--jobs 250] [--seed 1] [--out benchmarks/results]

Nodes are data in eight cities, as in ``benchmarks/geo_routing.py``; a gateway plans every job with the real planner
and remembers what it sees with the real :class:`far_mesh.measure.Measured`. Each swarm is run again with the same
chance and one thing changed, so that a lie's gain is the traffic (blocks of jobs) that it brings its liars, over what
they get when they say the truth:

* **speed**: a tenth of the nodes claim to be ten times as fast;
* **speed and queue**: and to have a tenth of the queue that they have;
* **nobody looks**: the same, and the gateway does not learn from rounds. What the lie would bring;
* **wrong**: a tenth of the nodes sign receipts that contradict what the gateway saw, in every third job;
* **shaky**: a tenth of the nodes break off 28 % of their jobs;
* **new**: a tenth of the nodes come when a third of the jobs is done, honest. Their share of the traffic over what they
  have when they are there from the beginning.

Steps jitter by 5 %, of links only some are measured, and the planner guesses the others. Each job runs until as many
more have begun as run at once, and makes the others at its nodes wait.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.geo_routing import BLOCKS, CITIES, CLIENT, LAST_MILE_MS, World, draw_world, measured_and_places
from benchmarks.support import report
from benchmarks.support.lines import lines
from discovery.dht.memory import MemoryNetwork
from discovery.protocol.announcement import Announcement
from discovery.protocol.errors import ReceiptInvalid
from discovery.score import Outcome
from far_mesh.contributions import Verified
from far_mesh.costs import HOP_MS, Known, claimed_block_ms
from far_mesh.errors import NoRoute
from far_mesh.measure import Measured
from far_mesh.route import RouteHop, plan_route
from far_mesh.session import Ended
from tests.support.documents import peer_of

SHARE = 10
"""One of so many nodes is not like the others."""
BOAST = 10.0
AT_ONCE = 6
SETTLED = 50
"""Jobs after which nothing should be gained any more."""
MISSES = 0.28
WRONG_EVERY = 3
JITTER = 0.05
"""Of one step; a gateway takes the median of those that it saw."""
_SEEN_ROUNDS, _SEEN_RECEIPTS = 25, 2
JOB_SECONDS, TOKENS = 20.0, 128
PAUSE_SECONDS = 3.0
WINDOW = 25


@dataclass(frozen=True)
class Kind:
    """What is different about some of the nodes: they claim to be ``boast`` times as fast, and a queue that is shorter
    by ``idles``."""

    boast: float = 1.0
    idles: float = 1.0
    misses: float = 0.0
    wrong: bool = False
    comes_at: float = 0.0
    gateway_learns: bool = True


HONEST = Kind()
KINDS = {
    "speed": Kind(boast=BOAST),
    "speed and queue": Kind(boast=BOAST, idles=BOAST),
    "nobody looks": Kind(boast=BOAST, idles=BOAST, gateway_learns=False),
    "wrong": Kind(wrong=True),
    "shaky": Kind(misses=MISSES),
    "new": Kind(comes_at=1 / 3),
}


class Gateway:
    """A gateway that runs jobs in a swarm. ``odd`` are the nodes that are of the kind."""

    def __init__(self, world: World, told: Sequence[Announcement], known: Known, odd: set[str], kind: Kind) -> None:
        self._world, self._told, self._known, self._odd, self._kind = world, told, known, odd, kind
        self._now, self._trips = 0.0, dict(known.round_trips)
        self._measured = Measured(MemoryNetwork().join(peer_of("gateway")), lambda: self._now)
        self._running: deque[Counter[str]] = deque()
        self._load: Counter[str] = Counter()
        self.traffic: list[int] = []
        """Of each job, the blocks that odd nodes ran."""
        self.lost = 0

    def run(self, jobs: int, dice: random.Random) -> None:
        """Plan and run so many jobs, one after the other begins."""
        for number in range(jobs):
            if len(self._running) == AT_ONCE:
                self._load -= self._running.popleft()
            self._now += JOB_SECONDS / AT_ONCE
            self._job(number >= self._kind.comes_at * jobs, random.Random(dice.random()))

    def _job(self, all_there: bool, dice: random.Random) -> None:
        nodes = [self._said(node) for node in self._told if all_there or node.peer_id not in self._odd]
        known = replace(self._measured.known(nodes), round_trips=self._trips, location=self._known.location)
        try:
            route = plan_route(nodes, BLOCKS, known=known)
        except NoRoute:
            self.lost += 1
            self.traffic.append(0)
            return
        self.traffic.append(sum(hop.end_block - hop.first_block for hop in route if hop.node.peer_id in self._odd))
        peers = [hop.node.peer_id for hop in route]
        misses = [peer_id for peer_id in peers if peer_id in self._odd and dice.random() < self._kind.misses]
        self._trips |= {peer_id: self._world.round_trip(CLIENT, peer_id) for peer_id in peers}
        self._measured.served(peers)
        if misses:
            self._measured.failed(misses, Outcome.PAUSED)
            self._measured.paused(PAUSE_SECONDS)
        is_telling = self._kind.gateway_learns and not misses
        heard = tuple(self._heard_ms(route, dice)) if is_telling else ()
        rejected = self._rejected(peers, dice) if self._kind.wrong else ()
        self._measured.ended(Ended(route, heard, TOKENS, Verified((), rejected)), known)
        self._running.append(Counter(peers))
        self._load.update(peers)

    def _said(self, node: Announcement) -> Announcement:
        """What it announces now."""
        boast, idles = (self._kind.boast, self._kind.idles) if node.peer_id in self._odd else (1.0, 1.0)
        changes = {"block_ms": claimed_block_ms(node) / boast, "queue_ms": self._queue_ms(node) / idles}
        return node.model_copy(update=changes)

    def _queue_ms(self, node: Announcement) -> float:
        return claimed_block_ms(node) * (node.end_block - node.first_block) * self._load[node.peer_id] / 2

    def _heard_ms(self, route: Sequence[RouteHop], dice: random.Random) -> Iterator[float]:
        """For each node, when the gateway hears in truth that a token has gone through it."""
        nodes, before, so_far = {node.peer_id: node for node in self._told}, CLIENT, 0.0
        for hop in route:
            node = nodes[hop.node.peer_id]
            so_far += self._world.round_trip(before, node.peer_id) / 2 + HOP_MS + self._queue_ms(node)
            so_far += (hop.end_block - hop.first_block) * claimed_block_ms(node)
            before = node.peer_id
            back = self._world.round_trip(node.peer_id, CLIENT) / 2
            seen = _SEEN_ROUNDS if hop is route[-1] else _SEEN_RECEIPTS
            yield (so_far + back) * max(0.5, dice.gauss(1.0, JITTER / math.sqrt(seen)))

    def _rejected(self, peers: Sequence[str], dice: random.Random) -> tuple[ReceiptInvalid, ...]:
        liars = [peer_id for peer_id in peers if peer_id in self._odd and dice.randrange(WRONG_EVERY) == 0]
        return tuple(ReceiptInvalid("a lie", peer_id=peer_id, against="client") for peer_id in liars)


def traffic(kind: Kind, nodes: int, jobs: int, seed: int) -> list[int]:
    """Of each job, the blocks that the odd nodes of a swarm ran."""
    dice = random.Random(seed)
    random.seed(seed)  # which neighbours nodes measure
    world = draw_world(dice, nodes).of_user(dice.choice(CITIES), dice.uniform(*LAST_MILE_MS))
    told, known = measured_and_places(world, dice)
    odd = {node.peer_id for node in dice.sample(list(world.nodes), max(1, nodes // SHARE))}
    gateway = Gateway(world, told, known, odd, kind)
    gateway.run(jobs, dice)
    return gateway.traffic


def many(kind: Kind, swarms: int, nodes: int, jobs: int, seed: int) -> list[list[int]]:
    """The traffic of so many swarms."""
    return [traffic(kind, nodes, jobs, seed + number) for number in range(swarms)]


def compare(kind: Kind, odd: Sequence[Sequence[int]], honest: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Many swarms with odd nodes of a kind, and the same with honest ones."""
    swarms, jobs = len(odd), len(odd[0])
    ways = list(range(0, jobs, WINDOW))
    windows = [(_sum(odd, at, at + WINDOW), _sum(honest, at, at + WINDOW)) for at in ways]
    first = max(SETTLED, jobs // 2 if kind.comes_at else 0)
    settled, fair, blocks = _sum(odd, first, jobs), _sum(honest, first, jobs), BLOCKS * swarms
    return {
        "first_window_over_honest": round(windows[0][0] / max(1, windows[0][1]), 3),
        "settled_over_honest": round(settled / max(1, fair), 3),
        "share_of_all_traffic": round(settled / (blocks * (jobs - first)), 4),
        "honest_share_of_all_traffic": round(fair / (blocks * (jobs - first)), 4),
        "share_by_window": [round(one / (blocks * WINDOW), 4) for one, _ in windows],
        "honest_share_by_window": [round(other / (blocks * WINDOW), 4) for _, other in windows],
    }


def _sum(jobs: Sequence[Sequence[int]], first: int, end: int) -> int:
    return sum(sum(one[first:end]) for one in jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swarms", type=int, default=40)
    parser.add_argument("--nodes", type=int, default=48)
    parser.add_argument("--jobs", type=int, default=250)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    commit = report.commit()
    sizes = given.swarms, given.nodes, given.jobs, given.seed
    honest = many(HONEST, *sizes)
    found = {name: compare(kind, many(kind, *sizes), honest) for name, kind in KINDS.items()}
    command = f"python -m benchmarks.liars --swarms {given.swarms} --nodes {given.nodes} --jobs {given.jobs}"
    report.keep(given.out, "liars", f"{command} --seed {given.seed}", commit, {"blocks": BLOCKS, "kinds": found})
    panels = {
        name: {
            series: [(WINDOW * (at + 1), share) for at, share in enumerate(one[key])]
            for series, key in (("with the lie", "share_by_window"), ("honest", "honest_share_by_window"))
        }
        for name, one in found.items()
    }
    (given.out / "liars.svg").write_text(lines("Share of the traffic of a tenth of the nodes, by jobs", panels))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
