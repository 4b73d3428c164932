"""The only owner of the device: one thread that, each time it comes free, runs what the batcher picks of what waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import structlog
import torch
from torch import Tensor

from discovery.protocol.announcement import Codec
from discovery.protocol.codec import WireTensor
from discovery.protocol.errors import DeadlineExceeded, FarError, ProtocolViolation
from discovery.protocol.messages import Priority, Step
from far_node.batcher import Batcher, Turn, Waiting
from far_node.blocks.cache import BlockCache
from far_node.blocks.prefix import Keys, PrefixCache
from far_node.blocks.run import Blocks
from far_node.blocks.slots import SlotRows
from far_node.blocks.wire import all_finite, can_carry, from_wire, to_wire
from far_node.errors import Busy, ComputeFailed, Leaving, SessionUnknown
from far_node.limits import Limits

T = TypeVar("T")
log = structlog.get_logger(__name__)

_OUT_OF_MEMORY_RETRY_SECONDS = 5.0
_FULL_QUEUE_RETRY_SECONDS = 1.0
_NOTHING = torch.empty(0)


@dataclass(eq=False)
class Place:
    """Where a session computes: blocks of a model, its rows of cache, and how it is to be treated."""

    blocks: Blocks
    first: int
    end: int
    cache: SlotRows | BlockCache
    codec: Codec
    client: str
    priority: Priority = Priority.NORMAL
    left_padding: tuple[int, ...] = ()
    prefixes: PrefixCache | None = None
    is_computing: bool = False
    closed: bool = False
    """Set before the rows are given to somebody else: no step of this session runs after that."""

    @property
    def kind(self) -> tuple[int, int, int, bool] | None:
        """What may share a pass with this session's steps; None: nothing."""
        if not isinstance(self.cache, SlotRows) or any(self.left_padding):
            return None
        fresh = self.blocks.has_recurrent_state and self.cache.length == 0
        return id(self.blocks), self.first, self.end, fresh


@dataclass(frozen=True)
class Computed:
    """The result of a step: hidden states for the successor; of the positions, ``cached`` were known already.

    ``waited`` and ``seconds``: until its turn came, and from then on.
    """

    hidden: WireTensor
    cached: int
    waited: float
    seconds: float


@dataclass(frozen=True)
class Load:
    """How busy the device is. Rates are of the time it computes, over all sessions."""

    queued: int
    batch_rows: int
    decode_rows_per_second: float
    prefill_positions_per_second: float


class Executor:
    """Computes steps, in batches where that can be, and makes other calls in between."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._arrivals: SimpleQueue[_StepJob | _CallJob | None] = SimpleQueue()
        self._queued = 0
        self._asking, self._closed = threading.Lock(), False
        self._worker = _Worker(self._limits, self._arrivals)

    async def run(self, call: Callable[[], T]) -> T:
        """Wait for ``call`` to run on the compute thread, before the steps that wait.

        Raises:
            Busy: the device is out of memory.
            ComputeFailed: anything else that is not of our error family; the log says what.
            Leaving: the executor is closed.
        """
        job = _CallJob(call)
        self._ask(job)
        return await job.answer  # type: ignore[no-any-return]

    def soon(self, call: Callable[[], None]) -> None:
        """Have ``call`` run on the compute thread before what is asked of it after this; nobody waits for it."""
        with suppress(Leaving):
            self._ask(_CallJob(call))

    async def compute(self, place: Place, step: Step, keep: int = 0, keys: Keys = ()) -> Computed:
        """The hidden states after a session's blocks; a session gives its steps one after the other.

        Args:
            step: checked against the session it is of.
            keep: how many positions are wanted, counted from the end; 0: all.
            keys: of the prefix, where stored states may be used and kept.

        Raises:
            Busy: too many steps wait, this one waited too long, or the device is out of memory.
            BadPosition: the cache cannot go on from there.
            ProtocolViolation: the numbers are not finite.
            DeadlineExceeded: it took longer than a step may.
            ComputeFailed: the computation broke; the log says how.
            Leaving: the executor is closed.
        """
        if self._queued >= self._limits.queue_size:
            raise Busy(f"{self._queued} steps wait, the most this node lets", retry_after=_FULL_QUEUE_RETRY_SECONDS)
        job = _StepJob(place, step, keep, keys)
        self._ask(job)
        self._queued += 1
        try:
            return await job.answer  # type: ignore[no-any-return]
        finally:
            self._queued -= 1

    def load(self) -> Load:
        """What the node tells of itself."""
        batcher = self._worker.batcher
        return Load(
            self._queued, self._worker.last_rows, batcher.decode_rows_per_second, batcher.prefill_positions_per_second
        )

    def close(self) -> None:
        """Wait for what was asked and end the thread."""
        with self._asking:
            if not self._closed:
                self._closed = True
                self._arrivals.put(None)
        self._worker.thread.join()

    def _ask(self, job: _StepJob | _CallJob) -> None:
        with self._asking:  # whoever closes may be another thread, and after that nobody would answer
            if self._closed:
                raise Leaving("this node has stopped and computes nothing more")
            self._arrivals.put(job)


class _Job:
    """Something to do and who waits for it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Any] = self.loop.create_future()

    @property
    def is_wanted(self) -> bool:
        return not self.answer.done()


class _CallJob(_Job):
    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self.call = call


class _StepJob(_Job):
    """A step on its way through the device; everything below ``keys`` belongs to the compute thread.

    ``waiting`` is what the batcher is told of it: of the positions that are left.
    """

    waiting: Waiting

    def __init__(self, place: Place, step: Step, keep: int, keys: Keys) -> None:
        super().__init__()
        self.place, self.step, self.keep, self.keys = place, step, keep, keys
        self.since = time.monotonic()
        self.began: float | None = None
        self.rest = _NOTHING
        self.outputs: list[Tensor] = []
        self.restored = 0

    def wait(self, key: int) -> None:
        """Say what is left to do."""
        place, (rows, positions, _) = self.place, self.rest.shape
        self.waiting = Waiting(
            key=key,
            session=id(place),
            client=place.client,
            priority=place.priority,
            since=self.since,
            rows=rows,
            positions=positions,
            kind=place.kind,
            packs=place.blocks.packs,
            divides=place.blocks.divides or (place.cache.length > 0 and not place.blocks.resumes),
        )

    @torch.inference_mode()
    def prepare(self) -> None:
        """Bring the cache to where the step starts and the numbers to the device."""
        place, step = self.place, self.step
        if place.closed:
            raise SessionUnknown("the session is closed")
        place.cache.rewind(step.start_position)
        if step.rows:
            place.cache.select_rows(torch.tensor(step.rows, device=place.blocks.device))
        self.rest = from_wire(step.hidden, place.blocks.device, place.blocks.dtype)
        if not all_finite(self.rest):
            raise ProtocolViolation(f"the hidden states hold numbers that are not finite in {place.blocks.dtype}")
        if self.keys and place.prefixes is not None and isinstance(place.cache, SlotRows):
            known = place.prefixes.restore(self.keys, place.cache, step.start_position)
            if known is not None:
                self.restored = known.shape[1]
                self.outputs.append(known)
                self.rest = self.rest[:, self.restored :]

    @torch.inference_mode()
    def result(self) -> Computed:
        """What is handed on, once nothing is left to compute."""
        place, step = self.place, self.step
        output = self.outputs[0] if len(self.outputs) == 1 else torch.cat(self.outputs, dim=1)
        kept = output[:, -self.keep :] if self.keep else output
        if not can_carry(kept, place.codec):
            raise ComputeFailed(f"the blocks gave numbers that are not finite in {place.codec}: out of their range")
        if self.keys and place.prefixes is not None and isinstance(place.cache, SlotRows):
            place.prefixes.store(self.keys, place.cache, output, step.start_position)
        began = self.began or self.since
        return Computed(
            hidden=to_wire(kept, place.codec),
            cached=self.restored * step.hidden.shape[0],
            waited=began - self.since,
            seconds=time.monotonic() - began,
        )


@dataclass
class _Answers:
    """Results of one turn, told to the loop in one go."""

    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, BaseException | None]]] = field(
        default_factory=dict
    )

    def add(self, job: _Job, result: Any = None, error: BaseException | None = None) -> None:
        self.by_loop.setdefault(job.loop, []).append((job.answer, result, error))

    def tell(self) -> None:
        for loop, answers in self.by_loop.items():
            with suppress(RuntimeError):  # the loop is closed, and with it whoever waited
                loop.call_soon_threadsafe(_settle, answers)
        self.by_loop = {}


def _settle(answers: Sequence[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for answer, result, error in answers:
        if answer.done():  # cancelled meanwhile
            continue
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)


class _Worker:
    """The compute thread and all that it alone may touch."""

    def __init__(self, limits: Limits, arrivals: SimpleQueue[_StepJob | _CallJob | None]) -> None:
        self.batcher = Batcher(limits)
        self.last_rows = 0
        self._limits, self._arrivals = limits, arrivals
        self._steps: dict[int, _StepJob] = {}
        self._arrived = 0
        self._answers = _Answers()
        self._closing = False
        self.thread = threading.Thread(target=self._work, name="compute", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while not (self._closing and not self._steps):
            try:
                self._take(block=not self._steps)
                if self._steps:
                    self._wait_for_company()
                self._drop_unwanted()  # after all are in: among them may be the next owner of a closed session's rows
                if self._steps:
                    self._run(self._choose())
            except Exception:  # a bug of ours: those who wait are told, and the thread goes on
                log.exception("compute_thread_failed")
                for job in self._steps.values():
                    self._answers.add(job, error=ComputeFailed("the node's computation failed; its log says why"))
                self._steps = {}
            self._answers.tell()

    def _take(self, *, block: bool, timeout: float | None = None) -> None:
        """Everything that has come; with ``block`` wait for one thing at least, ``timeout`` seconds at most."""
        while True:
            try:
                job = self._arrivals.get(block, timeout)
            except Empty:
                return
            block = False
            if job is None:
                self._closing = True
                return
            if isinstance(job, _StepJob):
                self.batcher.came(id(job.place), job.since)
                if not self._attempt(job, job.prepare):
                    continue
                if job.rest.shape[1] == 0:  # all of it was known
                    self._attempt(job, job.result, answer=True)
                    self._answers.tell()
                    continue
                job.wait(self._arrived)
                self._steps[self._arrived] = job
                self._arrived += 1
            elif job.is_wanted:
                self._attempt(job, job.call, answer=True)
                self._answers.tell()

    def _drop_unwanted(self) -> None:
        now = time.monotonic()
        for key, job in list(self._steps.items()):
            error = self._refusal(job, now)
            if error is not None or not job.is_wanted:
                del self._steps[key]
                self._answers.add(job, error=error)

    def _refusal(self, job: _StepJob, now: float) -> FarError | None:
        if job.place.closed:
            return SessionUnknown("the session is closed")
        if job.began is None and now - job.since > self._limits.queue_timeout:
            waited = f"the step waited for {self._limits.queue_timeout:g} s"
            return Busy(waited, retry_after=_FULL_QUEUE_RETRY_SECONDS)
        if job.began is not None and now - job.began > self._limits.step_timeout:
            return DeadlineExceeded(f"the step took more than {self._limits.step_timeout:g} s")
        return None

    def _wait_for_company(self) -> None:
        patience = self.batcher.patience(self._waiting())
        deadline = time.monotonic() + patience
        while patience > 0 and (left := deadline - time.monotonic()) > 0:
            before = len(self._steps)
            self._take(block=True, timeout=left)
            if len(self._steps) == before or self.batcher.patience(self._waiting()) == 0:
                return

    def _waiting(self) -> list[Waiting]:
        return [job.waiting for job in self._steps.values()]

    def _choose(self) -> Turn:
        return self.batcher.next_turn(self._waiting(), time.monotonic())

    def _run(self, turn: Turn) -> None:
        started = time.monotonic()
        shares = [(self._steps[share.step.key], share.positions) for share in turn.shares]
        for job, _ in shares:
            job.began = job.began or started
        self.last_rows = turn.rows
        computed = self._pass(shares)
        ended = time.monotonic()
        for share, (job, _) in zip(turn.shares, shares, strict=True):
            finished = job in computed and job.rest.shape[1] == 0
            if finished:
                self._attempt(job, job.result, answer=True)
            if finished or job not in computed:
                del self._steps[share.step.key]
            else:
                job.wait(share.step.key)
        self._answers.tell()  # those who wait go on while we learn from it
        self.batcher.learn(turn, ended - started, ended)

    def _pass(self, shares: Sequence[tuple[_StepJob, int]]) -> list[_StepJob]:
        """Compute so many positions of each; those that fail are told so, the others are given back."""
        if len(shares) > 1:
            try:
                _advance(shares)
            except Exception:  # one of them may be to blame: alone each has its own fate
                log.warning("batch_failed", sessions=len(shares), exc_info=True)
            else:
                return [job for job, _ in shares]
        return [share[0] for share in shares if self._attempt(share[0], partial(_advance, [share]))]

    def _attempt(self, job: _Job, call: Callable[[], Any], answer: bool = False) -> bool:
        """Make a call for somebody; what it raises is theirs. ``answer``: so is what it returns."""
        try:
            result = call()
        except (torch.OutOfMemoryError, MemoryError):
            error: Exception = Busy("the device is out of memory", retry_after=_OUT_OF_MEMORY_RETRY_SECONDS)
        except FarError as known:
            error = known
        except Exception as broken:  # the edge of the device: torch raises what it likes, the client gets a typed error
            log.error("compute_failed", kind=type(broken).__name__, exc_info=True)
            error = ComputeFailed("the node's computation failed; its log says why")
        else:
            if answer:
                self._answers.add(job, result)
            return True
        self._answers.add(job, error=error)
        return False


def _advance(shares: Sequence[tuple[_StepJob, int]]) -> None:
    """One forward pass over the next positions of these steps."""
    place = shares[0][0].place
    inputs = [job.rest[:, :positions] for job, positions in shares]
    if isinstance(place.cache, SlotRows):
        rows = [job.place.cache for job, _ in shares]
        parts = list(zip(inputs, rows, strict=True))
        outputs = place.blocks.run_together(parts, place.first, place.end, place.left_padding)
    else:
        outputs = [place.blocks.run(inputs[0], place.cache, place.first, place.end, place.left_padding)]
    for (job, positions), output in zip(shares, outputs, strict=True):
        job.outputs.append(output)
        job.rest = job.rest[:, positions:]
