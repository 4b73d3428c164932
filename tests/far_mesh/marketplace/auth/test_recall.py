"""What is remembered is young, little, and never older than a change that was made here."""

from __future__ import annotations

import asyncio

import pytest

from far_mesh.marketplace.auth.recall import Recall


class Source:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def read(self) -> int:
        self.asked += 1
        return self.asked


async def test_an_answer_counts_for_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    at = [100.0]
    monkeypatch.setattr("far_mesh.marketplace.auth.recall.monotonic", lambda: at[0])
    source, known = Source(), Recall[str, int](2.0)
    assert [await known.get("a", source.read) for _ in range(3)] == [1, 1, 1]
    at[0] += 1.9
    assert await known.get("a", source.read) == 1
    at[0] += 0.1
    assert await known.get("a", source.read) == 2


async def test_no_seconds_no_memory() -> None:
    source, known = Source(), Recall[str, int](0)
    assert [await known.get("a", source.read) for _ in range(3)] == [1, 2, 3]


async def test_a_change_here_is_known_at_once() -> None:
    source, known = Source(), Recall[str, int](60)
    await known.get("a", source.read)
    known.forget()
    assert await known.get("a", source.read) == 2


async def test_what_was_read_before_a_change_is_not_kept_after_it() -> None:
    source, known, changed = Source(), Recall[str, int](60), asyncio.Event()

    async def slow() -> int:
        value = await source.read()
        await changed.wait()
        return value

    reading = asyncio.create_task(known.get("a", slow))
    await asyncio.sleep(0)
    known.forget()
    changed.set()
    assert await reading == 1
    assert await known.get("a", source.read) == 2


async def test_the_newest_are_kept_and_no_more() -> None:
    source, known = Source(), Recall[int, int](60, most=3)
    for key in range(10):
        await known.get(key, source.read)
    assert [await known.get(key, source.read) for key in (9, 8, 7)] == [10, 9, 8]
    assert await known.get(6, source.read) == 11


async def test_a_failure_is_not_remembered() -> None:
    source, known = Source(), Recall[str, int](60)

    async def fails() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await known.get("a", fails)
    assert await known.get("a", source.read) == 1
