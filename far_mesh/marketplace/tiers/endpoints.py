"""The table of tiers for everybody, one's own tier, and what operators set."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from discovery.protocol.ids import check_wallet
from far_mesh.marketplace.auth.door import AccountReader, Operator
from far_mesh.marketplace.inference.endpoints import Service as Inference
from far_mesh.marketplace.limits.door import PerAddress
from far_mesh.marketplace.tiers.answers import (
    AccountTier,
    AccountTiers,
    NewAccountTier,
    NewPrivatePool,
    PrivatePool,
    TierEntry,
    TierList,
    TierPrices,
)
from far_mesh.marketplace.tiers.names import TierName
from far_mesh.marketplace.tiers.repository import Membership
from far_mesh.marketplace.tiers.service import TierService

router = APIRouter(tags=["tiers"])


async def tier_service(request: Request) -> TierService:
    """The room's service, made by the app."""
    service: TierService = request.app.state.rooms.tiers
    return service


Service = Annotated[TierService, Depends(tier_service)]


@router.get("/api/tiers", dependencies=[PerAddress])
async def tiers(service: Service, inference: Inference) -> TierList:
    """How each tier is served and what it costs. Needs no token."""
    listed = await inference.price_list(tuple(service.table.all()))
    entries = []
    for tier in service.table.all():
        prices = {
            model_id: TierPrices(prompt_price_units=found.prompt, completion_price_units=found.completion)
            for model_id, by_tier in listed.items()
            if (found := by_tier.get(tier.name)) is not None
        }
        entries.append(TierEntry(**tier.model_dump(), prices=prices))
    return TierList(tiers=entries)


@router.get("/api/account/tier")
async def own_tier(service: Service, wallet: AccountReader) -> AccountTier:
    """In which tier the caller is, and which it may use."""
    return _account(service, wallet, await service.membership(wallet))


@router.get("/api/operator/tiers")
async def all_tiers(service: Service, _: Operator) -> AccountTiers:
    """Who is in another tier than standard."""
    return AccountTiers(accounts=[_account(service, one.wallet, one) for one in await service.all_of_them()])


@router.get("/api/operator/tiers/{wallet_address}")
async def tier_of(service: Service, _: Operator, wallet_address: str) -> AccountTier:
    """In which tier an account is."""
    wallet = check_wallet(wallet_address)
    return _account(service, wallet, await service.membership(wallet))


@router.put("/api/operator/tiers/{wallet_address}")
async def put_tier(service: Service, _: Operator, wallet_address: str, body: NewAccountTier) -> AccountTier:
    """Put an account into a tier, for good or until a time. Requests under way stay in the one they began in."""
    wallet = check_wallet(wallet_address)
    return _account(service, wallet, await service.put(wallet, body.tier, body.until))


@router.get("/api/operator/pools/{wallet_address}")
async def pool_of(service: Service, _: Operator, wallet_address: str) -> PrivatePool:
    """The private pool of an account."""
    wallet = check_wallet(wallet_address)
    return PrivatePool(wallet_address=wallet, members=await service.pools.members(wallet))


@router.put("/api/operator/pools/{wallet_address}")
async def put_pool(service: Service, _: Operator, wallet_address: str, body: NewPrivatePool) -> PrivatePool:
    """Say which nodes the private pool of an account has."""
    wallet = check_wallet(wallet_address)
    return PrivatePool(wallet_address=wallet, members=await service.pools.put(wallet, body.members))


def _account(service: TierService, wallet: str, found: Membership | None) -> AccountTier:
    tier, until = (TierName.STANDARD, None) if found is None else (found.tier, found.until)
    allowed = [one.name for one in service.table.up_to(tier)]
    return AccountTier(wallet_address=wallet, tier=tier, until=until, allowed=allowed)
