"""What a user notices of nodes that are lost in the middle of an answer."""

from __future__ import annotations

import asyncio
import random
import shlex
import time
from collections.abc import Awaitable, Callable, Sequence

from discovery.protocol.errors import FarError, InvalidArgument
from far_mesh.bench.asking import prompt_of, timed
from far_mesh.bench.figures import Facts, Timed, longest_pause, share, spread_ms
from far_mesh.bench.progress import OnProgress
from far_mesh.client import Generation, Mesh
from far_mesh.config import GenerationOptions
from far_mesh.session import Mended

Kill = Callable[[str], Awaitable[None]]
"""End the node with this peer id at once."""

_LEAST_TOKENS = 4
_COMMAND_SECONDS = 60.0
_LAST_WORDS = 300


async def failover(
    mesh: Mesh,
    kill: Kill,
    *,
    restore: Callable[[], Awaitable[None]] | None = None,
    prompt_length: int,
    tokens: int,
    rounds: int,
    seed: int,
    on_progress: OnProgress,
) -> Facts:
    """In each round a random node of the route is killed at a random token of the first half of the answer.

    Every answer is compared with the undisturbed one to the same prompt. An answer that fails is counted by its code.
    ``restore`` is called between rounds, to bring back what was killed.

    Raises:
        FarError: an undisturbed answer did not come, or a node could not be killed.
    """
    draw = random.Random(seed)  # noqa: S311  # no secret
    options = GenerationOptions(max_tokens=tokens)
    found: list[Facts] = []
    usual: list[float] = []
    for number in range(rounds):
        prompt = prompt_of(mesh, prompt_length, seed + number)
        try:
            undisturbed = await timed(mesh, prompt, options)
        except FarError as error:
            if not found or restore is not None:
                raise
            found.append({"outcome": error.code, "kills": 0})  # too few are left, and nobody brings them back
            break
        if len(undisturbed.arrivals) < _LEAST_TOKENS:
            raise InvalidArgument(f"an answer of {len(undisturbed.arrivals)} tokens leaves no time to kill a node")
        usual += undisturbed.gaps
        at = draw.randint(1, len(undisturbed.arrivals) // 2)
        found.append(await _Round(mesh, kill, draw, at).run(prompt, options, undisturbed))
        on_progress("killing nodes", number + 1, rounds)
        if restore is not None and number + 1 < rounds:
            await restore()
    done = [one for one in found if one["outcome"] == "same text"]
    return {
        "settings": {"prompt_tokens": prompt_length, "tokens": tokens, "rounds": rounds, "seed": seed},
        "rounds": found,
        "same_text": share(len(done), len(found)),
        "pause_ms": spread_ms([one["pause_ms"] / 1000 for one in done if one["pause_ms"] is not None]),
        "time_per_token_ms": spread_ms(usual),
    }


class _Round:
    """One answer in which a node is lost."""

    def __init__(self, mesh: Mesh, kill: Kill, draw: random.Random, at: int) -> None:
        self._mesh, self._kill, self._draw, self._at = mesh, kill, draw, at
        self._started = 0.0
        self._killed_at: float | None = None
        self._lost: tuple[str, tuple[int, int]] | None = None
        self._mended: list[Mended] = []

    async def run(self, prompt: Sequence[int], options: GenerationOptions, undisturbed: Timed) -> Facts:
        self._started = time.monotonic()
        answer: Timed | None = None
        try:
            answer = await timed(
                self._mesh, prompt, options, on_token=self._kill_one_at_its_time, on_mended=self._take_note
            )
            outcome = "same text" if answer.token_ids == undisturbed.token_ids else "other text"
        except KillFailed:
            raise
        except FarError as error:
            outcome = error.code
        pause = None
        if answer is not None and self._killed_at is not None:
            pause = longest_pause(answer.arrivals, self._killed_at)
        return {
            "outcome": outcome,
            "kills": int(self._lost is not None),
            "at_token": self._at,
            "peer_id": self._lost[0] if self._lost else None,
            "blocks": self._lost[1] if self._lost else None,
            "pause_ms": None if pause is None else round(pause * 1000, 3),
            "mending_ms": [round(one.seconds * 1000, 3) for one in self._mended],
            "replaced_by": [peer for one in self._mended for peer in one.replaced_by],
            "proven": answer.is_proven if answer else False,
            "seconds": round(time.monotonic() - self._started, 3),
        }

    async def _kill_one_at_its_time(self, generation: Generation, count: int) -> None:
        if count != self._at:
            return
        hop = self._draw.choice(generation.hops)
        await self._kill(hop.peer_id)
        self._lost = hop.peer_id, hop.blocks
        self._killed_at = time.monotonic() - self._started

    def _take_note(self, mended: Mended) -> None:
        if not mended.waiting_for:
            self._mended.append(mended)


class KillFailed(FarError):
    """The operator's command did not kill a node."""

    code = "kill_failed"
    status = 502


def kill_command(template: str) -> Kill:
    """The operator's own command, in which ``{peer_id}`` stands for the node to be killed; no shell reads it.

    Raises:
        InvalidArgument: it cannot be taken apart, or does not say ``{peer_id}``.
    """
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise InvalidArgument(f"the kill command cannot be read: {error}", param="kill_command") from None
    if not any("{peer_id}" in word for word in words):
        raise InvalidArgument("the kill command must say {peer_id}", param="kill_command")

    async def kill(peer_id: str) -> None:
        command = [word.replace("{peer_id}", peer_id) for word in words]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise KillFailed(f"{command[0]} cannot be run: {error.strerror}") from None
        try:
            async with asyncio.timeout(_COMMAND_SECONDS):
                _, said = await process.communicate()
        except BaseException as error:
            if process.returncode is None:
                process.kill()
            if isinstance(error, TimeoutError):
                raise KillFailed(f"{command[0]} took longer than {_COMMAND_SECONDS:.0f} s") from None
            raise
        if process.returncode:
            words_said = said.decode(errors="replace").strip()[-_LAST_WORDS:]
            raise KillFailed(f"{command[0]} ended with {process.returncode}: {words_said}", peer_id=peer_id)

    return kill
