"""Waiting for a bell ends when it rings, when the time is over, and when nobody wants to wait any more."""

from __future__ import annotations

import asyncio

import pytest

from far_mesh.marketplace.settlement.bell import Bell, either


async def test_who_waits_is_woken() -> None:
    bell = Bell()
    waiting = asyncio.create_task(either(bell.listen(), 60))
    await asyncio.sleep(0)
    bell.ring()
    await asyncio.wait_for(waiting, 60)


async def test_waiting_has_an_end() -> None:
    await either(Bell().listen(), 0.01)


@pytest.mark.parametrize("steps", range(4))
async def test_who_is_called_off_around_the_moment_of_the_ring_is_called_off(steps: int) -> None:
    bell = Bell()
    waiting = asyncio.create_task(either(bell.listen(), 60))
    await asyncio.sleep(0.01)
    bell.ring()
    for _ in range(steps):
        await asyncio.sleep(0)
    if waiting.cancel():  # it waits still
        with pytest.raises(asyncio.CancelledError):
            await waiting
