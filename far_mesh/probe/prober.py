"""Goes round the nodes of a swarm: looks whether each can be reached, asks it something, and tells what came of it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from discovery.probe.judge import Answer, block_ms_of, by_majority, is_right, tolerance, typical
from discovery.probe.observation import Fate, Observation, Verdict
from discovery.probe.plan import Budget, Server, Turns, cut, shared
from discovery.protocol.announcement import MAX_BLOCK_MS, MIN_BLOCK_MS, Announcement, Codec, SignedAnnouncement
from discovery.protocol.errors import DeadlineExceeded, FarError
from far_mesh.probe.ask import Given, Task, ask
from far_mesh.probe.exam import Exam, Question, apart, distances
from far_mesh.probe.vantage import Reached, Vantage
from far_node.errors import Busy, Leaving, OutOfCache

log = structlog.get_logger(__name__)

PROMPTS = (16, 48)
"""Positions of a prompt: from, to."""
SINGLE_STEPS = 8
FEWEST_BESIDE, MOST_BESIDE = 2, 4
"""Other owners that are asked the same, where nobody here knows the answer."""
LENGTHS = (128, 256, 512, 1024)
"""Positions that sessions are opened for."""
_REFUSALS = (Busy, Leaving, OutOfCache)
_MOST_ERROR = 1e6
_AT_ONCE, _MOST_IN_A_ROUND = 8, 64


class BoardLike(Protocol):
    """What is needed of :class:`discovery.dht.board.Board`."""

    async def all_nodes(self) -> list[SignedAnnouncement]:
        """Live announcements of all nodes."""


@dataclass(frozen=True)
class _Asked:
    """Who was looked at, and if it was asked something, what it gave or why it gave nothing."""

    node: Announcement
    reached: Reached
    given: Given | None = None
    failure: FarError | None = None


@dataclass(frozen=True)
class _Judged:
    """A verdict, who knew the answer, and how far from it this one was."""

    verdict: Verdict
    by: str | None = None
    error: float | None = None


class Prober:
    """Owner of whose turn it is, and of what was asked of whom.

    Args:
        exams: by digest, of the models of which something can be asked; of others nodes are only looked at.
        now: Unix seconds.
    """

    def __init__(
        self,
        exams: Mapping[str, Exam],
        turns: Turns,
        budget: Budget,
        chance: random.Random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._exams, self._turns, self._budget, self._chance, self._now = exams, turns, budget, chance, now
        self._writing = asyncio.Lock()
        """One question is made at a time."""

    async def round(self, vantage: Vantage, board: BoardLike) -> list[Observation]:
        """Look at all whose turn it is, and at who is asked the same beside them. What was seen of each."""
        nodes = [one.announcement for one in await board.all_nodes() if one.announcement.state == "ready"]
        by_peer: dict[str, list[Announcement]] = {}
        for node in nodes:
            by_peer.setdefault(node.peer_id, []).append(node)
        seen: dict[str, Observation] = {}
        gate = asyncio.Semaphore(_AT_ONCE)

        async def visit(peer_id: str) -> None:
            async with gate:
                if peer_id in seen:  # it was asked beside another
                    return
                for one in await self._visit(vantage, self._chance.choice(by_peer[peer_id]), nodes):
                    seen[one.peer_id] = one
                    self._turns.done(one.peer_id, self._now())

        await asyncio.gather(*map(visit, self._turns.due(by_peer, self._now())[:_MOST_IN_A_ROUND]))
        self._budget.forget(self._now())
        return list(seen.values())

    async def _visit(self, vantage: Vantage, node: Announcement, nodes: Sequence[Announcement]) -> list[Observation]:
        reached, exam = await vantage.look(node), self._exams.get(node.model_digest)
        if reached.round_trip_ms is None or exam is None:
            return [self._observed(_Asked(node, reached))]
        prompt = self._chance.randint(*PROMPTS)
        blocks, beside = self._plan(exam, node, nodes, prompt + SINGLE_STEPS)
        if blocks is None:
            return [self._observed(_Asked(node, reached))]
        group = [node, *beside]
        try:
            async with self._writing:
                peer_ids = [one.peer_id for one in group]
                positions, form = prompt + SINGLE_STEPS, node.quantization
                question = await asyncio.to_thread(exam.question, peer_ids, blocks, positions, form)
        except FarError as error:  # ours: the model's files are gone, or cannot be brought into this form
            log.warning("no_question", model=node.model_id, code=error.code, reason=error.message)
            return [self._observed(_Asked(node, reached))]
        fitting = [one for one in LENGTHS if exam.context_length is None or one <= exam.context_length]
        task = Task(blocks, question.hidden, prompt, self._chance.choice(fitting or LENGTHS[:1]), _codec_of(group))
        asked = [await self._ask(vantage, node, reached, task)]
        for one in beside:
            asked.append(await self._ask(vantage, one, await vantage.look(one), task))
        judged = judge(asked, question)
        return [self._observed(one, task, judged.get(one.node.peer_id)) for one in asked]

    def _plan(
        self, exam: Exam, node: Announcement, nodes: Sequence[Announcement], positions: int
    ) -> tuple[tuple[int, int] | None, list[Announcement]]:
        """Blocks that a node is to run, and who else is to run the same; no blocks: it was asked enough."""
        now = self._now()
        if node.block_count != exam.block_count:
            return None, []
        allowed = self._budget.left(node.peer_id, now)
        if exam.knows_answers:
            return cut(node.blocks, positions, allowed, self._chance), []
        others = [
            one
            for one in nodes
            if one.model_digest == node.model_digest
            and one.block_count == node.block_count
            and one.peer_id != node.peer_id
            and self._budget.left(one.peer_id, now) >= positions
        ]
        part = shared(_server(node), [_server(one) for one in others], FEWEST_BESIDE)
        blocks = cut(part, positions, allowed, self._chance)
        if blocks is None:
            return None, []
        by_owner: dict[str, list[Announcement]] = {}
        for one in others:
            affordable = self._budget.left(one.peer_id, now) >= positions * (blocks[1] - blocks[0])
            if one.wallet != node.wallet and _server(one).covers(blocks) and affordable:
                by_owner.setdefault(one.wallet, []).append(one)
        owners = self._chance.sample(sorted(by_owner), min(MOST_BESIDE, len(by_owner)))
        return blocks, [self._chance.choice(by_owner[owner]) for owner in owners]

    async def _ask(self, vantage: Vantage, node: Announcement, reached: Reached, task: Task) -> _Asked:
        if reached.round_trip_ms is None:
            return _Asked(node, reached)
        self._budget.spend(node.peer_id, task.token_layers, self._now())
        try:
            return _Asked(node, reached, await ask(vantage, node, task))
        except FarError as error:
            log.info("probe_failed", peer=node.peer_id, code=error.code, reason=error.message)
            return _Asked(node, reached, failure=error)

    def _observed(self, asked: _Asked, task: Task | None = None, judged: _Judged | None = None) -> Observation:
        node, reached, given = asked.node, asked.reached, asked.given
        seen = Observation(
            peer_id=node.peer_id,
            model_digest=node.model_digest,
            at=int(self._now()),
            reach=reached.reach,
            fate=fate_of(asked.failure) if asked.failure else Fate.COMPLETED if given else Fate.UNASKED,
            verdict=None if judged is None else judged.verdict,
            reason=asked.failure.code if asked.failure else reached.reason,
            round_trip_ms=reached.round_trip_ms,
            claimed_block_ms=node.block_ms,
        )
        if given is None or task is None or judged is None:
            return seen
        each = block_ms_of(given.step_seconds, reached.round_trip_ms or 0.0, task.blocks[1] - task.blocks[0])
        more = {
            "by": judged.by,
            "error": judged.error,
            "token_layers": task.token_layers,
            "block_ms": None if each is None else min(max(each, MIN_BLOCK_MS), MAX_BLOCK_MS),
            "receipt": given.receipt,
        }
        return Observation.model_validate(seen.model_dump() | more)


def judge(asked: Sequence[_Asked], question: Question) -> dict[str, _Judged]:
    """A verdict on each answer to a question, by peer id: by the right answer, or else by what most of them say."""
    there = {one.node.peer_id: (one.node, one.given) for one in asked if one.given is not None}
    if question.answer is not None:
        judged = {}
        for peer_id, (node, given) in there.items():
            since = slice(given.first, None)
            errors = distances(given.hidden, question.answer[:, since], question.hidden[:, since])
            right = is_right(errors, tolerance(node.quantization, node.quantization))
            verdict = Verdict.RIGHT if right else Verdict.WRONG
            judged[peer_id] = _Judged(verdict, "weights", min(typical(errors), _MOST_ERROR))
        return judged
    between = {
        (one, other): _apart(given, beside, question)
        for one, (_, given) in there.items()
        for other, (_, beside) in there.items()
        if one != other
    }
    answers = [Answer(peer_id, node.wallet, node.quantization) for peer_id, (node, _) in there.items()]
    verdicts = by_majority(answers, between)
    return {
        peer_id: _Judged(verdict, None if verdict is Verdict.UNDECIDED else "majority")
        for peer_id, verdict in verdicts.items()
    }


def fate_of(error: FarError) -> Fate:
    """What became of a probe that failed so."""
    if isinstance(error, _REFUSALS):
        return Fate.REFUSED
    return Fate.TIMED_OUT if isinstance(error, DeadlineExceeded) else Fate.FAILED


def _apart(one: Given, other: Given, question: Question) -> list[float]:
    """At the positions that both gave: of the last blocks only the end of a prompt comes back."""
    first = max(one.first, other.first)
    mine, others = (given.hidden[:, first - given.first :] for given in (one, other))
    return apart(mine, others, question.hidden[:, first:])


def _server(node: Announcement) -> Server:
    return Server(node.peer_id, node.wallet, node.blocks)


def _codec_of(group: Sequence[Announcement]) -> Codec:
    """The nodes' own type if they agree, as for a session."""
    kinds: set[Codec] = {node.dtype for node in group}
    return kinds.pop() if len(kinds) == 1 else "float32"
