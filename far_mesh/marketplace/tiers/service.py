"""Which tier an account is in, and which it may ask for."""

from __future__ import annotations

from datetime import datetime

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.auth.recall import Recall
from far_mesh.marketplace.clock import now
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.errors import TierForbidden, UnsupportedParameter
from far_mesh.marketplace.tiers import repository
from far_mesh.marketplace.tiers.names import TierName
from far_mesh.marketplace.tiers.pools import Pools
from far_mesh.marketplace.tiers.reliability import Reliability
from far_mesh.marketplace.tiers.repository import Membership
from far_mesh.marketplace.tiers.schemas import Tier, TierTable

PARAM = "tier"


class TierService:
    """The tiers of all accounts, and on which nodes they run. What was read of an account counts for
    ``recall_seconds``: so long a change that was made elsewhere may not be seen here."""

    def __init__(self, database: Database, table: TierTable, recall_seconds: float) -> None:
        self._database = database
        self.table = table
        self._recall: Recall[str, Membership | None] = Recall(recall_seconds)
        self.reliability = Reliability(database)
        self.pools = Pools(database, self.reliability, recall_seconds)

    async def tier_of(self, wallet: str) -> Tier:
        """The tier that ``wallet`` is in now."""
        found = await self._recall.get(wallet, lambda: self._read(wallet))
        return self.table[found.tier if found is not None and found.counts(now()) else TierName.STANDARD]

    async def choose(self, wallet: str, wanted: str | None) -> Tier:
        """The tier of a request: ``wanted`` if the account may use it, and the account's own where it names none.

        Raises:
            UnsupportedParameter: there is no such tier.
            TierForbidden: the account is in a lower one.
        """
        if wanted is not None and wanted not in list(TierName):
            there_are = ", ".join(TierName)
            raise UnsupportedParameter(f"there is no tier {wanted!r}; there is: {there_are}", param=PARAM)
        own = await self.tier_of(wallet)
        if wanted is None or wanted == own.name:
            return own
        allowed = self.table.up_to(own.name)
        found = next((tier for tier in allowed if tier.name == wanted), None)
        if found is None:
            names = [tier.name.value for tier in allowed]
            raise TierForbidden(
                f"your account may not use the tier {wanted}; it may use: {', '.join(names)}", param=PARAM, tiers=names
            )
        return found

    async def membership(self, wallet: str) -> Membership | None:
        """What is written down of ``wallet``; None: nothing that has not ended."""
        found = await self._read(wallet)
        return found if found is not None and found.counts(now()) else None

    async def all_of_them(self) -> list[Membership]:
        """Everybody who is in another tier than standard now."""
        async with self._database.reading() as connection:
            found = await repository.all_of_them(connection)
        at = now()
        return [one for one in found if one.counts(at)]

    async def put(self, wallet: str, tier: TierName, until: datetime | None = None) -> Membership:
        """From now on ``wallet`` is in ``tier``, for good or ``until`` a time.

        Raises:
            InvalidArgument: that time has passed, or it is for standard, which has no end.
        """
        if until is not None and tier is TierName.STANDARD:
            raise InvalidArgument("standard has no end: leave until out", param="until")
        if until is not None and until <= now():
            raise InvalidArgument("until must be in the future", param="until")
        async with self._database.writing() as connection:
            written = await repository.put(connection, wallet, tier, until)
        self._recall.forget()
        return written

    async def _read(self, wallet: str) -> Membership | None:
        async with self._database.reading() as connection:
            return await repository.find(connection, wallet)
