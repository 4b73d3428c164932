"""What it costs to settle many requests together: gas for each, through the real composer, on a real chain (anvil).

python -m benchmarks.settlement_gas [--requests 1000] [--providers 10] [--users 10] [--out benchmarks/results]

Every request pays all of the providers. It is done twice over channels, whose vouchers fill the pool, and twice by
charges to deposits; the first time pays for slots that the escrow has not used before, so the last is the one that
counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.support.report import commit, keep
from far_mesh.marketplace.database import Database
from far_mesh.marketplace.migrations import upgrade
from far_mesh.marketplace.settlement.schemas import Kind, Row
from tests.far_mesh.marketplace.house import rpc, start_chain
from tests.far_mesh.marketplace.settlement.netting import Netting, Payer
from tests.support.documents import wallet_of

ROUNDS, MOST_UNITS, DEPOSIT, AT_ONCE = 2, 10_000, 10**12, 50
LIMIT_FROM_POOL = 200


class Scene:
    """A town, and who is paid in it."""

    def __init__(self, town: Netting, providers: int, chance: random.Random) -> None:
        self.town, self._chance = town, chance
        self._wallets = [str(wallet_of(f"provider {index}")) for index in range(providers)]

    async def round(self, users: list[Payer], requests: int, channels: list[tuple[str, str]] | None) -> dict[str, Any]:
        """Serve the requests, settle them, and say what it cost."""
        for first in range(0, requests, AT_ONCE):
            some = range(first, min(first + AT_ONCE, requests))
            await asyncio.gather(*(self._serve(users, index % len(users), channels) for index in some))
        before = {kind: len(await self.town.rows(kind)) for kind in (Kind.REDEEM, Kind.SETTLE)}
        began = time.perf_counter()
        await self.town.settles(self.town.settler())
        seconds = time.perf_counter() - began
        gas = {
            kind: [await self._gas(row) for row in (await self.town.rows(kind))[count:]]
            for kind, count in before.items()
        }
        await self.town.check()
        return {
            "batches": len(gas[Kind.SETTLE]),
            "batch_gas": sum(gas[Kind.SETTLE]),
            "batch_gas_per_request": round(sum(gas[Kind.SETTLE]) / requests, 1),
            "redemption_gas": sum(gas[Kind.REDEEM]),
            "redemption_gas_per_request": round(sum(gas[Kind.REDEEM]) / requests, 1),
            "seconds": round(seconds, 2),
        }

    async def _serve(self, users: list[Payer], place: int, channels: list[tuple[str, str]] | None) -> None:
        payouts = {wallet: self._chance.randint(1, MOST_UNITS) for wallet in self._wallets}
        channel_id = channels[place][0] if channels else None
        await self.town.served(users[place].address, payouts, channel_id=channel_id)

    async def _gas(self, row: Row) -> int:
        receipt = await rpc(self.town.chain.rpc_url, "eth_getTransactionReceipt", row.tx_hash)
        return int(receipt["gasUsed"], 16)


async def measure(requests: int, providers: int, users: int, seed: int) -> dict[str, Any]:
    """Both ways, twice each."""
    with tempfile.TemporaryDirectory() as folder:
        anvil, live = await start_chain(Path(folder) / "chain")
        url = f"sqlite+aiosqlite:///{folder}/marketplace.db"
        await upgrade(url)
        database, chain = Database(url), live.connect()
        try:
            town = Netting(database, chain)
            scene = Scene(town, providers, random.Random(seed))
            people = [await town.user(DEPOSIT) for _ in range(users)]
            channels = [await town.opens_channel(user, DEPOSIT // 2) for user in people]
            for channel_id, key in channels:
                await town.promises(channel_id, key, DEPOSIT // 2)
            pool = [await scene.round(people, requests, channels) for _ in range(ROUNDS)]
            deposits = [await scene.round(people, requests, None) for _ in range(ROUNDS)]
            return {"requests": requests, "providers": providers, "users": users, "pool": pool, "deposits": deposits}
        finally:
            await chain.close()
            await database.close()
            await anvil.stop()


def main() -> None:
    """Measure, keep the figures, and fail where a request of a batch from the pool costs too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--providers", type=int, default=10)
    parser.add_argument("--users", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    of_commit = commit()
    results = asyncio.run(measure(given.requests, given.providers, given.users, given.seed))
    command = f"python -m benchmarks.settlement_gas --requests {given.requests} --providers {given.providers}"
    keep(given.out, "settlement_gas", f"{command} --users {given.users} --seed {given.seed}", of_commit, results)
    print(json.dumps(results, indent=2))
    if results["pool"][-1]["batch_gas_per_request"] > LIMIT_FROM_POOL:
        sys.exit(f"a request of a batch takes more than {LIMIT_FROM_POOL} gas")


if __name__ == "__main__":
    main()
