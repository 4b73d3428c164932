"""Where the windows are: in this process, or in a Redis that several gateways share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr

from discovery.web.windows import Memory, Store
from far_mesh.marketplace.payments.errors import MissingExtra


@asynccontextmanager
async def open_store(redis_url: SecretStr | None) -> AsyncIterator[Store]:
    """Windows until the end of the block. Nothing is asked of Redis yet: it may come later.

    Raises:
        MissingExtra: the library for Redis is not installed.
    """
    if redis_url is None:
        yield Memory()
        return
    try:
        from far_mesh.marketplace.limits.shared import Shared
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        raise MissingExtra("FAR_REDIS_URL needs redis: run `pip install 'far-mesh[redis]'`", extra="redis") from None
    shared = Shared(redis_url.get_secret_value())
    try:
        yield shared
    finally:
        await shared.close()
