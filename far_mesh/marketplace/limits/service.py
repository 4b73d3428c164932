"""Who may ask how much in a minute. Every door comes through here: HTTP, gRPC, MCP and jobs.

An account has the limits of its tier, an API key may have one of its own below them. Of tokens a request takes the most
that it can come to when it begins, and what it did not need is given back when it ends: so several at once cannot go
beyond the limit together, and a high ``max_tokens`` costs nothing for longer than the answer takes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from discovery.protocol.errors import FarError, InvalidArgument
from discovery.web.address import Address, subscriber
from discovery.web.windows import Share, Standing, Store, Verdict
from far_mesh.marketplace.errors import RateLimited
from far_mesh.marketplace.keys.service import KeyService
from far_mesh.marketplace.limits.schemas import Grant, PerMinute, duration, headers_of, tightest
from far_mesh.marketplace.tiers.service import TierService


class RateLimits:
    """Owner of all windows."""

    def __init__(self, store: Store, tiers: TierService, keys: KeyService, per_minute: PerMinute) -> None:
        self._store = store
        self._tiers = tiers
        self._keys = keys
        self._per_minute = per_minute
        self._ending: set[asyncio.Task[None]] = set()

    # ---- requests for inference

    async def begin(self, wallet: str, api_key_id: str | None = None) -> Grant:
        """Count a request of an account, and of the API key that it was made with.

        Raises:
            RateLimited: it would be one too many in this minute.
        """
        tier = await self._tiers.tier_of(wallet)
        limits: dict[str, int] = {}
        if tier.requests_per_minute is not None:
            limits[f"requests/{wallet}"] = tier.requests_per_minute
        own = None if api_key_id is None else await self._keys.requests_per_minute(api_key_id)
        if own is not None:
            limits[f"key/{api_key_id}"] = own
        entry = _new_entry()
        verdict = await self._store.take(entry, [Share(window, limit) for window, limit in limits.items()])
        standing = tightest(verdict.standings)
        if standing is not None and verdict.wait_us:
            said = f"there were {standing.used} requests in the last minute, and {standing.limit} are allowed"
            raise _refusal("requests", said, verdict, standing)
        return Grant(entry, wallet, tuple(limits), standing)

    async def reserve(self, grant: Grant, tokens: int) -> Grant:
        """Count the most tokens that the request can come to.

        Raises:
            InvalidArgument: they are more than the account may have in any minute.
            RateLimited: more than are left in this one.
        """
        tier = await self._tiers.tier_of(grant.wallet)
        limit = tier.tokens_per_minute
        if limit is None:
            return grant
        if tokens > limit:
            raise InvalidArgument(
                f"the request can come to {tokens} tokens, and the tier {tier.name} allows {limit} a minute: ask for "
                "less, with a lower max_tokens or a shorter prompt",
                param="max_tokens",
            )
        verdict = await self._store.take(grant.entry, [Share(_tokens(grant.wallet), limit, tokens)])
        standing = verdict.standings[0]
        if verdict.wait_us:
            said = f"the request can come to {tokens} tokens, {standing.used} were taken in the last minute"
            raise _refusal("tokens", f"{said}, and the tier allows {limit}", verdict, standing)
        return replace(grant, tokens=standing)

    async def refused(self, grant: Grant, error: BaseException) -> None:
        """The request did not begin. It counts all the same where that was its caller's fault; where it was for want of
        room it does not, so that who asks again when we say so is not refused for having asked."""
        await self._store.put_right(grant.entry, _tokens(grant.wallet), 0)
        if not isinstance(error, FarError) or error.status == 429 or error.status >= 500:
            for window in grant.windows:
                await self._store.put_right(grant.entry, window, 0)

    async def end(self, grant: Grant, tokens: int) -> None:
        """The request came to so many tokens."""
        if grant.tokens is not None:
            await self._store.put_right(grant.entry, _tokens(grant.wallet), tokens)

    def end_soon(self, grant: Grant, tokens: int) -> None:
        """The same, for those who cannot wait."""
        task = asyncio.create_task(self.end(grant, tokens))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Finish what was to be done soon."""
        await asyncio.gather(*self._ending)

    # ---- everything else

    async def call(self, wallet: str) -> Standing | None:
        """Count a request of an account that is none for inference. None: there is no limit.

        Raises:
            RateLimited: it would be one too many in this minute.
        """
        return await self._count(f"account/{wallet}", self._per_minute.account, "this account has asked")

    async def public(self, address: Address | None) -> Standing | None:
        """Count a request to what needs no credential.

        Raises:
            RateLimited: it would be one too many in this minute.
        """
        return await self._count(f"public/{subscriber(address)}", self._per_minute.public, "your address has asked")

    async def sign_in(self, address: Address | None) -> Standing | None:
        """Count a request for a sign-in message, or a sign-in.

        Raises:
            RateLimited: it would be one too many in this minute.
        """
        said = "your address has asked to sign in"
        return await self._count(f"sign-in/{subscriber(address)}", self._per_minute.sign_ins, said)

    @asynccontextmanager
    async def attempt(self, address: Address | None) -> AsyncIterator[None]:
        """A sign-in that counts if it fails by the caller's fault. It counts as such while it goes on, so that it is
        not even looked at where others of this address have failed before.

        Raises:
            RateLimited: too many have failed in this minute.
        """
        entry, window = _new_entry(), f"failed-sign-in/{subscriber(address)}"
        await self._count(window, self._per_minute.failures, "sign-ins of your address have failed", entry)
        try:
            yield
        except FarError as error:
            if error.status >= 500:
                await self._store.put_right(entry, window, 0)
            raise
        await self._store.put_right(entry, window, 0)

    async def failed(self, address: Address | None) -> None:
        """Count a credential that was none. Those of others at the same address still count.

        Raises:
            RateLimited: it was one too many in this minute.
        """
        said = "credentials from your address were refused"
        await self._count(f"failed-credential/{subscriber(address)}", self._per_minute.failures, said)

    async def _count(self, window: str, limit: int, said: str, entry: str | None = None) -> Standing | None:
        if not limit:
            return None
        verdict = await self._store.take(entry or _new_entry(), [Share(window, limit)])
        standing = verdict.standings[0]
        if verdict.wait_us:
            raise _refusal("requests", f"{said} {standing.used} times in the last minute", verdict, standing)
        return standing


def _refusal(what: str, said: str, verdict: Verdict, standing: Standing) -> RateLimited:
    return RateLimited(
        f"{said}: ask again in {duration(verdict.wait_us)}",
        retry_after=verdict.wait_us / 1_000_000,
        headers=headers_of(what, standing),
    )


def _tokens(wallet: str) -> str:
    return f"tokens/{wallet}"


def _new_entry() -> str:
    return secrets.token_hex(8)
