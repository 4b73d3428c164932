"""API keys: made once, shown once, found by their hash, revoked at any time."""

from __future__ import annotations

import re

from discovery.protocol.errors import InvalidArgument
from discovery.protocol.ids import Wallet
from far_mesh.marketplace.auth.principal import Principal, Role, Scope
from far_mesh.marketplace.auth.recall import Recall
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import Forbidden, KeyUnknown, TooManyKeys, Unauthorized
from far_mesh.marketplace.keys import repository
from far_mesh.marketplace.keys.repository import Found
from far_mesh.marketplace.keys.schemas import LONGEST_LIFE, ApiKey, NewKey
from far_mesh.marketplace.keys.text import hash_of, new_key, shown

MOST_KEYS = 100
KEY_ID = re.compile(r"key_[0-9a-f]{24}\Z")


class KeyService:
    """The keys of all wallets. What was read of one counts for ``recall_seconds``: so long a key that was revoked at
    another gateway may still work at this one."""

    def __init__(self, database: Database, recall_seconds: float) -> None:
        self._database = database
        self._recall: Recall[str, Found] = Recall(recall_seconds)
        self._rates: Recall[str, int | None] = Recall(recall_seconds)

    async def make(self, maker: Principal, wanted: NewKey) -> tuple[ApiKey, str]:
        """A new key, and its text, which is kept nowhere.

        Raises:
            InvalidArgument: it would have expired already, or would live for more than ten years.
            Forbidden: it is to do more than its maker may.
            TooManyKeys: the wallet has a hundred, those included that it revoked in the last thirty days.
        """
        text, at = new_key(), now()
        if wanted.expires_at is not None and not at < wanted.expires_at <= at + LONGEST_LIFE:
            raise InvalidArgument("expires_at must be in the future, at most ten years from now", param="expires_at")
        if Scope.OPERATOR in wanted.scopes and Role.OPERATOR not in maker.roles:
            raise Forbidden("only an operator's key can have the scope operator", param="scopes")
        async with self._database.writing() as connection:
            await repository.forget_revoked(connection, maker.wallet, at)
            if await repository.count(connection, maker.wallet) >= MOST_KEYS:
                raise TooManyKeys(
                    f"a wallet has at most {MOST_KEYS} API keys; those that are revoked count for thirty days more"
                )
            made = await repository.add(connection, maker.wallet, wanted, hash_of(text), shown(text), at)
        return made, text

    async def of_wallet(self, wallet: Wallet) -> list[ApiKey]:
        """All keys of a wallet, the newest first."""
        async with self._database.reading() as connection:
            return await repository.of_wallet(connection, wallet)

    async def revoke(self, wallet: Wallet, key_id: str) -> None:
        """A key counts no more.

        Raises:
            KeyUnknown: the wallet has none of this id.
        """
        if not KEY_ID.match(key_id) or not await self._revoke(wallet, key_id):
            raise KeyUnknown("you have no such API key", param="key_id")
        self._recall.forget()

    async def _revoke(self, wallet: Wallet, key_id: str) -> bool:
        async with self._database.writing() as connection:
            return await repository.revoke(connection, wallet, key_id, now())

    def forget(self) -> None:
        """Keys were revoked by somebody else in this process."""
        self._recall.forget()

    async def find(self, text: str) -> Found:
        """The key that ``text`` is, if it counts. That it was used is noted, at most once a minute.

        Raises:
            Unauthorized: it is not one of ours, or not any more.
        """
        key_hash = hash_of(text)
        found = await self._recall.get(key_hash, lambda: self._look(key_hash))
        if found.key.revoked_at is not None:
            raise Unauthorized("the API key was revoked")
        if found.key.expires_at is not None and now() >= found.key.expires_at:
            raise Unauthorized("the API key has expired")
        return found

    async def requests_per_minute(self, key_id: str) -> int | None:
        """How many requests a key may make in a minute; None: as many as its account."""
        return await self._rates.get(key_id, lambda: self._rate(key_id))

    async def _rate(self, key_id: str) -> int | None:
        async with self._database.reading() as connection:
            return await repository.requests_per_minute(connection, key_id)

    async def _look(self, key_hash: str) -> Found:
        async with self._database.reading() as connection:
            found = await repository.find(connection, key_hash)
        if found is None:  # raised here, so that what strangers make up does not fill the memory
            raise Unauthorized("there is no such API key")
        if _use_is_to_be_noted(found.key):
            async with self._database.writing() as connection:
                await repository.used(connection, found.key.id, now())
        return found


def _use_is_to_be_noted(key: ApiKey) -> bool:
    at = now()
    if key.revoked_at is not None or (key.expires_at is not None and at >= key.expires_at):
        return False
    return key.last_used_at is None or key.last_used_at <= at - repository.USE_IS_TRUE_TO
