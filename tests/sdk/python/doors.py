"""Both clients, driven alike: what is true of one is true of the other."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

from farlabs import AsyncFarLabsClient, FarLabsClient

WALLET_KEY = "0x" + "5f" * 32


class Threads:
    """The client for threads."""

    kind: type[Any] = FarLabsClient

    def __init__(self) -> None:
        self._clients: list[Any] = []

    def client(self, url: str, **options: Any) -> Any:
        """A new one; it is closed in the end."""
        client = self.kind(url, **({"timeout": 10.0} | options))
        self._clients.append(client)
        return client

    def do(self, given: Any) -> Any:
        """What a method gives, once it is there."""
        return given

    def pieces(self, generation: Any) -> list[str]:
        """The text, piece by piece."""
        return list(generation)

    def events(self, generation: Any) -> list[Any]:
        """All that is told."""
        return list(generation.events())

    def first(self, generation: Any) -> str:
        """The first piece; then the loop is left."""
        for piece in generation:
            return str(piece)
        raise AssertionError("nothing came")

    def at_once(self, *methods: Any) -> list[Any]:
        """What these give, all asked at the same time."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(len(methods)) as pool:
            return [future.result() for future in [pool.submit(method) for method in methods]]

    def close(self) -> None:
        """All clients."""
        for client in self._clients:
            client.close()


class EventLoop(Threads):
    """The client for event loops."""

    kind = AsyncFarLabsClient

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()

    def do(self, given: Any) -> Any:
        return self._loop.run_until_complete(given) if inspect.isawaitable(given) else given

    def pieces(self, generation: Any) -> list[str]:
        async def read() -> list[str]:
            return [piece async for piece in generation]

        return self._loop.run_until_complete(read())

    def events(self, generation: Any) -> list[Any]:
        async def read() -> list[Any]:
            return [event async for event in generation.events()]

        return self._loop.run_until_complete(read())

    def first(self, generation: Any) -> str:
        async def read() -> str:
            async for piece in generation:
                return str(piece)
            raise AssertionError("nothing came")

        async def read_and_let_go() -> str:
            piece = await read()
            for _ in range(20):
                await asyncio.sleep(0)  # the loop closes what was left
            return piece

        return self._loop.run_until_complete(read_and_let_go())

    def at_once(self, *methods: Any) -> list[Any]:
        async def ask() -> list[Any]:
            return list(await asyncio.gather(*(method() for method in methods)))

        return self._loop.run_until_complete(ask())

    def close(self) -> None:
        for client in self._clients:
            self._loop.run_until_complete(client.aclose())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
