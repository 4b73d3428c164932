"""A marketplace, or a settler alone, in a process of its own that kills itself after a named step; one that recovers.

The steps are patched in from here: production code knows nothing of them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from far_mesh.marketplace.app import Rooms, open_rooms
from far_mesh.marketplace.chain.anvil import CHAIN_ID
from far_mesh.marketplace.chain.client import Chain, address_of
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.inference.run import Run
from far_mesh.marketplace.inference.service import Wish
from far_mesh.marketplace.sessions import repository as sessions
from far_mesh.marketplace.sessions.schemas import Gateway
from far_mesh.marketplace.settings import Settings
from far_mesh.marketplace.settlement.acts import ReleaseAct, escrow_acts
from far_mesh.marketplace.settlement.schemas import Kind, Row
from far_mesh.marketplace.settlement.service import Rules, Settlement, Settler
from tests.far_mesh.marketplace.doubles import MODEL, MeshDouble, Node, meshes_of
from tests.far_mesh.marketplace.house import SETTLER
from tests.far_mesh.marketplace.settlement.bench import GATEWAY


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


def again(_settler: Settler, row: Row, *_: Any) -> bool:
    """Only for what was signed before."""
    return row.attempts > 1


STEPS: dict[str, Callable[[], None]] = {
    "inside the transaction that holds": lambda: after(sessions, "add"),
    "held": lambda: after(Run, "_hold"),
    "lock signed and not sent": lambda: before(Settler, "_offer", of(Kind.LOCK)),
    "lock sent and not followed up": lambda: after(Settler, "_offer", of(Kind.LOCK)),
    "lock mined and not confirmed": lambda: before(Settler, "_confirm", of(Kind.LOCK)),
    "lock confirmed": lambda: after(Settler, "_confirm", of(Kind.LOCK)),
    "activated": lambda: after(Run, "_lock"),
    "route opened": lambda: after(Run, "_begin"),
    "first checkpoint": lambda: after(Run, "_keep_checkpoint"),
    "all tokens delivered": lambda: after(Run, "_pass_on"),
    "receipts in, nothing captured": lambda: before(Run, "_capture"),
    "inside the transaction that captures": lambda: after(sessions, "add_contributions"),
    "captured": lambda: after(Run, "_capture"),
    "release signed and not sent": lambda: before(Settler, "_offer", of(Kind.RELEASE)),
    "release sent and not followed up": lambda: after(Settler, "_offer", of(Kind.RELEASE)),
    "release mined and not confirmed": lambda: before(Settler, "_confirm", of(Kind.RELEASE)),
    "inside the transaction that confirms": lambda: after(sessions, "mark_paid"),
    "release confirmed": lambda: after(Settler, "_confirm", of(Kind.RELEASE)),
}


ROUND_STEPS: dict[str, Callable[[], None]] = {
    "signed and not written down": lambda: after(Chain, "sign"),
    "written down and not sent": lambda: before(Settler, "_offer"),
    "sent and not followed up": lambda: after(Settler, "_offer"),
    "mined and not confirmed": lambda: before(Settler, "_confirm"),
    "inside the transaction that confirms": lambda: after(ReleaseAct, "confirmed"),
    "confirmed": lambda: after(Settler, "_confirm"),
    "dearer signed and not written down": lambda: after(Chain, "sign_dearer"),
    "dearer written down and not sent": lambda: before(Settler, "_offer", again),
    "dearer sent": lambda: after(Settler, "_offer", again),
    "seen to be given up and not written down": lambda: before(Settler, "_vanish"),
    "inside the transaction that takes back": lambda: after(ReleaseAct, "vanished"),
    "taken back and not offered": lambda: after(Settler, "_vanish"),
}
"""What a settler does with a release: for the first time, when it waits for too long, when its block is given up."""


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
    return Wish(model_id=MODEL, prompts=("Tell me a story",), max_tokens=12, streamed=streamed)


def recover(job: Job) -> None:
    """Start again after a crash, and end when nothing is left to do."""
    asyncio.run(_recover(job))


async def _recover(job: Job) -> None:
    mesh = MeshDouble(serving=job.nodes)
    async with open_rooms(Settings.read(**job.settings), meshes_of(mesh)) as rooms:  # type: ignore[arg-type]
        await everything_settled(rooms)


@dataclass(frozen=True)
class Round:
    """What a child process that is nothing but a settler is to do."""

    database_url: str
    rpc_url: str
    token: str
    escrow: str
    die: str = ""


def settle(job: Round) -> None:
    """Settle until nothing is left, or until the step at which to die."""
    ROUND_STEPS.get(job.die, lambda: None)()
    asyncio.run(_settle(job))


async def _settle(job: Round) -> None:
    chain, database = Chain(job.rpc_url, CHAIN_ID, job.token, job.escrow), Database(job.database_url)
    room, acts = Settlement(database, chain, 30.0), escrow_acts(database, chain, address_of(SETTLER))
    life = Gateway(GATEWAY.name, str(uuid.uuid4()))
    settler = Settler(database, chain, SETTLER, life, room, acts, Rules(bump_seconds=1e-6))
    async with asyncio.timeout(20):
        await settler.drain()
    await chain.close()
    await database.close()


async def everything_settled(rooms: Rooms) -> None:
    """Until the settler has nothing left."""
    async with asyncio.timeout(20):
        while (found := (await rooms.health.readiness()).settlement) is None or found.pending + found.sent:
            await asyncio.sleep(0.01)
