"""A marketplace in a process of its own that kills itself after a named step, and one that recovers.

The steps are patched in from here: production code knows nothing of them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from far_mesh.marketplace.app import Rooms, open_rooms
from far_mesh.marketplace.inference.run import Run
from far_mesh.marketplace.inference.service import Wish
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement.schemas import Kind
from far_mesh.marketplace.settlement.service import Settler
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble, Node, meshes_of


@dataclass(frozen=True)
class Job:
    """What a child process is to do."""

    settings: dict[str, Any]
    wallet: str
    request_id: str
    nodes: tuple[Node, ...]
    die: str = ""
    streamed: bool = True


def die() -> None:
    """At once, without cleaning up."""
    os.kill(os.getpid(), signal.SIGKILL)


def after(owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
    """Die when ``owner.name`` has done its work."""
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def patched(*arguments: Any, **more: Any) -> Any:
        result = await original(*arguments, **more)
        if when(*arguments):
            die()
        return result

    setattr(owner, name, patched)


def before(owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
    """Die when ``owner.name`` is about to be called."""
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def patched(*arguments: Any, **more: Any) -> Any:
        if when(*arguments):
            die()
        return await original(*arguments, **more)

    setattr(owner, name, patched)


def of(kind: Kind) -> Callable[..., bool]:
    """Only for rows of this kind."""
    return lambda _settler, row, *_: row.kind is kind


STEPS: dict[str, Callable[[], None]] = {
    "inside the transaction that holds": lambda: after(sessions, "add"),
    "held": lambda: after(Run, "_hold"),
    "lock signed and not sent": lambda: before(Settler, "_offer", of(Kind.LOCK)),
    "lock sent and not followed up": lambda: after(Settler, "_offer", of(Kind.LOCK)),
    "lock mined and not confirmed": lambda: before(Settler, "_confirm", of(Kind.LOCK)),
    "lock confirmed": lambda: after(Settler, "_confirm", of(Kind.LOCK)),
    "activated": lambda: after(Run, "_lock"),
    "route opened": lambda: after(Run, "_open_route"),
    "first checkpoint": lambda: after(Run, "_keep_checkpoint"),
    "all tokens delivered": lambda: after(Run, "_pass_tokens_on"),
    "receipts in, nothing captured": lambda: before(Run, "_capture"),
    "inside the transaction that captures": lambda: after(sessions, "add_contributions"),
    "captured": lambda: after(Run, "_capture"),
    "release signed and not sent": lambda: before(Settler, "_offer", of(Kind.RELEASE)),
    "release sent and not followed up": lambda: after(Settler, "_offer", of(Kind.RELEASE)),
    "release mined and not confirmed": lambda: before(Settler, "_confirm", of(Kind.RELEASE)),
    "inside the transaction that confirms": lambda: after(sessions, "mark_paid"),
    "release confirmed": lambda: after(Settler, "_confirm", of(Kind.RELEASE)),
}


def act(job: Job) -> None:
    """Serve one request and die on the way."""
    STEPS[job.die]()
    asyncio.run(_act(job))


async def _act(job: Job) -> None:
    mesh = MeshDouble(serving=job.nodes)
    async with open_rooms(Settings.read(**job.settings), meshes_of(mesh)) as rooms:  # type: ignore[arg-type]
        run = await rooms.inference.start(job.wallet, job.request_id, wish(job.streamed))  # type: ignore[arg-type]
        async for _token in run:
            pass  # takes all that is there at once, so a checkpoint has all that was generated
        await run.answer()
        await everything_settled(rooms)


def act_to_the_end(job: Job) -> None:
    """Serve one request."""
    asyncio.run(_act(job))


def recover_and_die(job: Job) -> None:
    """Start again after a crash, and crash again."""
    STEPS[job.die]()
    asyncio.run(_recover(job))


def wish(streamed: bool) -> Wish:
    """The request that every job makes: 12 tokens at most."""
    return Wish(MODEL, "Tell me a story", 12, 0.0, 1.0, None, (), streamed)


def recover(job: Job) -> None:
    """Start again after a crash, and end when nothing is left to do."""
    asyncio.run(_recover(job))


async def _recover(job: Job) -> None:
    mesh = MeshDouble(serving=job.nodes)
    async with open_rooms(Settings.read(**job.settings), meshes_of(mesh)) as rooms:  # type: ignore[arg-type]
        await everything_settled(rooms)


async def everything_settled(rooms: Rooms) -> None:
    """Until the settler has nothing left."""
    async with asyncio.timeout(20):
        while (found := (await rooms.health.readiness()).settlement) is None or found.pending + found.sent:
            await asyncio.sleep(0.01)
