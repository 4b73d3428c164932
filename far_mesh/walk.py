"""The walk of one answer: steps round the ring with guesses ahead of them, and the model's own tokens out of them.

What is guessed and what is certain is kept by :class:`~far_mesh.speculate.Lookahead`; here it is sent and waited for.
A token that is certain leaves at once, with what the text itself suggests after it. A task beside it sends more guesses
while there is room for them; it never holds a certain token up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
import torch

from discovery.protocol.errors import FarError
from discovery.protocol.messages import WireTensor
from far_mesh.model.draft import DraftModel, DraftText
from far_mesh.model.sampler import Likelihood, Sampler
from far_mesh.session import MeshSession
from far_mesh.speculate import WINDOW, Budget, Guess, Lookahead, Repeats, SentStep, Source, drafted
from far_mesh.trace import NodeTime, StepTrace
from far_node.blocks.prefix import PREFIX_POSITIONS
from far_node.blocks.thread import ComputeThread
from far_node.blocks.wire import to_wire
from far_node.errors import BadPosition

log = structlog.get_logger(__name__)

_PARTS_PER_NODE = 2


@dataclass(frozen=True)
class Chosen:
    """The tokens that an answer tells, and what else it tells.

    Attributes:
        tokens: the model's own.
        likelihoods: of each of them, if they were asked for.
        hidden: hidden states of the last token as they leave for the nodes, if nobody has guessed it.
        has_ended: whether a grammar is complete with the last token.
    """

    tokens: list[int]
    likelihoods: list[Likelihood]
    hidden: torch.Tensor | None
    has_ended: bool


class Ends(Protocol):
    """The two ends of a model for one text, in a thread of their own.

    They may remember the text: then they are asked for one position after the other, or go back as nodes do.
    """

    @property
    def needs_all(self) -> bool: ...
    async def embed(self, ids: Sequence[int], start: int) -> torch.Tensor: ...
    async def choose(
        self,
        answer: WireTensor,
        start: int,
        first: int,
        guessed: Sequence[int],
        sampler: Sampler,
    ) -> Chosen: ...


class Drafter:
    """A draft model with a thread of its own: a token that is certain must not wait behind a guess."""

    def __init__(self, model: DraftModel) -> None:
        self.model = model
        self.thread = ComputeThread("draft")

    def close(self) -> None:
        """End the thread."""
        self.thread.close()


@dataclass(frozen=True)
class _Answer:
    """What came back, when, and what the nodes say it took them."""

    hidden: WireTensor
    at: float
    nodes: tuple[NodeTime, ...]


@dataclass
class _UnderWay:
    """A step, and the task that waits for its answer."""

    step: SentStep
    answer: asyncio.Task[_Answer]
    sent_at: float


def prompt_parts(positions: int, nodes: int) -> list[int]:
    """How a prompt is divided, so that the nodes of a ring work on it at the same time.

    ``p`` parts through ``n`` nodes take ``p + n - 1`` times as long as one part through one node, so two parts for each
    node are near the best; smaller ones gain less from having many positions in one pass. Parts are multiples of what
    nodes know a prompt's beginning by.
    """
    if nodes == 1:
        return [positions]
    units = -(-positions // (_PARTS_PER_NODE * nodes * PREFIX_POSITIONS))
    size = units * PREFIX_POSITIONS
    return [min(size, positions - start) for start in range(0, positions, size)]


class Walk:
    """Tokens of one answer: :meth:`begin`, then :meth:`confirmed` and :meth:`go_on` in turn, at last :meth:`settle`."""

    def __init__(
        self,
        session: MeshSession,
        ends: Ends,
        prompt_ids: Sequence[int],
        end_ids: frozenset[int],
        sampler: Sampler,
        *,
        guesses: bool,
        drafter: Drafter | None,
    ) -> None:
        self._session, self._ends, self._sampler = session, ends, sampler
        self.ahead = Lookahead(list(prompt_ids), len(prompt_ids) + sampler.options.max_tokens, end_ids)
        self._guesses = guesses
        self._under_way: list[_UnderWay] = []
        self._last_hidden: torch.Tensor | None = None
        if guesses and sampler.forbids:
            self.ahead.may_follow = _Filter(sampler.fork(), self.ahead)
        self._drafts = _Drafts(drafter, sampler.fork()) if guesses and drafter is not None else None
        self._guessing: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._settled = False
        self.steps: list[StepTrace] = []

    async def begin(self) -> None:
        """Send the prompt round; while it travels, read it for what may come."""
        hidden, needs_all = await self._ends.embed(self.ahead.tokens, 0), self._ends.needs_all
        whole = needs_all or not self._session.divides
        sizes = [hidden.shape[1]] if whole else prompt_parts(hidden.shape[1], len(self._session.route))
        for part in torch.split(hidden, sizes, dim=1):
            await self._send(part, self.ahead.send(part.shape[1]), keep=0 if needs_all else 1)
        if self._guesses:
            self._guessing = asyncio.create_task(self._guess())

    async def confirmed(self) -> Chosen | None:
        """The next tokens that are certain; None, once it is settled. The step after them is sent by :meth:`go_on`.

        Raises:
            FarError: what a node reports, a lost node, no answer in time, an answer that is no number, or a grammar
                that becomes too much for its limits.
        """
        while self._under_way:
            oldest = self._under_way[0]
            # a reader who goes away must not tear a step in two: its nodes would sign receipts that do not fit
            answer = await asyncio.shield(oldest.answer)
            self._under_way.pop(0)
            step = self.ahead.answered()
            began = time.monotonic()
            if step.is_void or step.is_part:
                self.steps.append(StepTrace(step.positions, 0, oldest.sent_at, answer.at, began, began, answer.nodes))
                continue
            first = len(self.ahead.tokens)
            guessed = [guess.token for guess in self.ahead.guesses][: step.positions]
            start = step.start + step.positions - answer.hidden.shape[1]  # of a prompt only the end may have come
            chosen = await self._ends.choose(answer.hidden, start, first, guessed, self._sampler)
            times = oldest.sent_at, answer.at, began, time.monotonic()
            self.steps.append(StepTrace(step.positions, len(chosen.tokens), *times, answer.nodes))
            self._learn(step, answer.at - oldest.sent_at + times[-1] - began)
            self.ahead.accept(chosen.tokens)
            self.ahead.has_ended = chosen.has_ended
            self._last_hidden = chosen.hidden
            return chosen
        return None

    async def go_on(self) -> None:
        """Send the last token round, if it is not under way as a guess that was right, and what follows it for free."""
        ahead = self.ahead
        if self._settled:
            return
        if ahead.needs_step:
            start, hidden = len(ahead.tokens) - 1, self._last_hidden
            guesses = self._from_text(ahead.budget()) if ahead.repeats is not None else []
            ids = [ahead.tokens[-1], *(guess.token for guess in guesses)]
            if hidden is None:
                hidden = await self._ends.embed(ids, start)
            elif guesses:
                hidden = torch.cat((hidden, await self._ends.embed(ids[1:], start + 1)), dim=1)
            if self._settled:
                return
            await self._send(hidden, ahead.send(len(ids), guesses))
        self._room.set()

    async def settle(self) -> None:
        """Send nothing more, and wait for what is under way."""
        self._settled = True
        if self._guessing is not None:
            self._guessing.cancel()
            await asyncio.wait([self._guessing])
        if self._under_way:
            await asyncio.wait([one.answer for one in self._under_way])
        for one in self._under_way:
            if not one.answer.cancelled():
                one.answer.exception()  # taken note of: whoever still reads is told by the stream

    async def _send(self, hidden: torch.Tensor, step: SentStep, keep: int = 0) -> None:
        """Start a step; its bytes are on their way when this returns, its answer is not there yet."""
        wire = to_wire(hidden, self._session.asked.codec)
        answer = asyncio.create_task(self._step(wire, step.start, keep))
        self._under_way.append(_UnderWay(step, answer, time.monotonic()))
        await asyncio.sleep(0)

    async def _step(self, wire: WireTensor, start: int, keep: int) -> _Answer:
        session = self._session
        hidden = await session.step(wire, start, keep=keep)
        said = zip(session.route, session.last_times, strict=False)  # claims, and maybe not one of each node
        return _Answer(
            hidden, time.monotonic(), tuple(NodeTime(hop.node.peer_id, one.waited, one.computed) for hop, one in said)
        )

    def _learn(self, step: SentStep, seconds: float) -> None:
        controller = self.ahead.controller
        if controller.knows_the_ring:
            controller.step_took(step.positions - 1 + step.behind, seconds)
        else:
            controller.prefill_took(step.positions + step.behind, seconds)

    def _from_text(self, budget: Budget) -> list[Guess]:
        """Guesses from the text, up to a window of them; they cost nothing until they are sent."""
        ahead, guesses = self.ahead, list[Guess]()
        draft_chance = ahead.controller.draft_chance
        if self._drafts is None or not budget.pays(Source.DRAFT, draft_chance):
            draft_chance = 0.0
        while len(guesses) < WINDOW and (guess := ahead.guess_from_text(budget, guesses, draft_chance)) is not None:
            guesses.append(guess)
        return guesses

    async def _guess(self) -> None:
        """Send windows of guesses as long as there is room for them, and wait for room."""
        ahead = self.ahead
        try:
            await self._read_prompt()
            if self._drafts is not None:
                await self._drafts.score(ahead, lambda: not self._settled)
            while True:
                await self._room.wait()
                self._room.clear()
                while await self._send_window():
                    continue
                if self._drafts is not None and self._drafts.is_due(ahead):
                    await self._drafts.score(ahead, lambda: not self._settled)
        except FarError as error:
            log.info("guessing_ended", code=error.code)
        except Exception:  # the edge of the task: guesses are a help, and an answer goes on without them
            log.warning("guessing_ended", exc_info=True)

    async def _read_prompt(self) -> None:
        prompt, repeats = tuple(self.ahead.tokens), Repeats()
        await asyncio.to_thread(repeats.read, prompt)
        repeats.read(self.ahead.tokens[len(prompt) :])
        self.ahead.repeats = repeats

    async def _send_window(self) -> bool:
        """Whether another may be tried: one was sent, or came too late."""
        ahead = self.ahead
        if ahead.needs_step or ahead.is_over or not ahead.controller.knows_the_ring:
            return False
        epoch, start, budget = ahead.epoch, ahead.next_position, ahead.budget()
        window = self._from_text(budget)
        if not window and self._drafts is not None:
            window = await self._drafts.window(ahead, budget)
        if not window or ahead.epoch != epoch:
            return ahead.epoch != epoch
        try:
            hidden = await self._ends.embed([guess.token for guess in window], start)
        except BadPosition:  # ends that remember the text went back, before it was their turn to hear of the window
            if ahead.epoch == epoch:
                raise
            return True
        if ahead.epoch == epoch and not self._settled:
            await self._send(hidden, ahead.send(len(window), window))
        return True


class _Filter:
    """Which guesses the options of a text forbid. Reads the text as it becomes certain."""

    def __init__(self, sampler: Sampler, ahead: Lookahead) -> None:
        self._sampler, self._ahead = sampler, ahead

    def __call__(self, guesses: Sequence[int], token: int) -> bool:
        try:
            self._sampler.read(self._ahead.tokens[self._sampler.position :])
            return self._sampler.may_follow(guesses, token)
        except FarError:  # a text goes on without guesses
            return False


class _Drafts:
    """The guesses of a draft model for one text."""

    def __init__(self, drafter: Drafter, sampler: Sampler) -> None:
        self._thread = drafter.thread
        self._text = DraftText(drafter.model, sampler)
        self._known = 0
        """So many of the tokens that are certain it has read."""

    def is_due(self, ahead: Lookahead) -> bool:
        """Whether it should read what it had no part in, to learn how it would have done."""
        return ahead.controller.should_score(len(ahead.tokens) - self._known)

    async def score(self, ahead: Lookahead, is_wanted: Callable[[], bool]) -> None:
        """Read the text, and compare what it would have said with what came. The first time there is nothing to say."""
        known, tail = self._known, ahead.tokens[self._known :]
        since = known or len(tail)
        began = time.monotonic()
        choices = await self._thread.run(lambda: self._text.predict(known, tail, since, is_wanted))
        if known:
            ahead.controller.score_took(time.monotonic() - began)
        self._known = known + len(tail)
        for choice, token in zip(choices, tail[since - known :], strict=False):  # of the last it is not known yet
            ahead.controller.saw(drafted(choice.token, choice.probability).kind, choice.token == token)

    async def window(self, ahead: Lookahead, budget: Budget) -> list[Guess]:
        """Guesses after those that are under way, as many as are worth it; fewer, where they come too late."""
        if not budget.pays(Source.DRAFT, ahead.controller.draft_chance):
            return []
        known, epoch, start = self._known, ahead.epoch, ahead.next_position
        tail = [*ahead.tokens[known:], *(guess.token for guess in ahead.guesses)]
        tokens = len(ahead.tokens)
        tries, guesses, unsent = ahead.controller.draft_window, list[Guess](), list[tuple[int, Guess]]()

        def work() -> int:
            for made in range(tries):
                if ahead.epoch != epoch:
                    return made
                (choice,) = self._text.predict(known, tail, start + made)
                guess = drafted(choice.token, choice.probability)
                if not ahead.takes(guess.token, start + made) or self._text.ends_with(guess.token):
                    return made + 1
                if not budget.take(guess):
                    unsent.append((start + made, guess))
                    return made + 1
                guesses.append(guess)
                tail.append(guess.token)
            return tries

        began = time.monotonic()
        asked = await self._thread.run(work)
        if asked:
            self._known = tokens
            ahead.controller.draft_took(asked, time.monotonic() - began)
        if unsent and ahead.epoch == epoch:
            ahead.unsent = unsent[0]
        return guesses
