"""``/api/account/keys``: a wallet's API keys."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from far_mesh.marketplace.auth.door import AccountReader, AccountWriter, SignedIn
from far_mesh.marketplace.auth.principal import Scope
from far_mesh.marketplace.http import errors
from far_mesh.marketplace.keys.schemas import ApiKey, KeyCreated, KeyEntry, KeyLimits, KeyList, KeyRequest, NewKey
from far_mesh.marketplace.keys.service import KeyService

router = APIRouter(prefix="/api/account/keys", tags=["account"])


async def key_service(request: Request) -> KeyService:
    """The room's service, made by the app."""
    service: KeyService = request.app.state.rooms.keys
    return service


Service = Annotated[KeyService, Depends(key_service)]


@router.post("", status_code=201, responses=errors(409))
async def make(service: Service, who: SignedIn, body: KeyRequest) -> KeyCreated:
    """A new key. The answer is the only place where it is ever shown. Needs the wallet itself, not another key."""
    wanted = NewKey(body.name, body.scopes, body.expires_at, **body.limits.model_dump())
    made, text = await service.make(who, wanted)
    return KeyCreated(key=text, **_entry(made))


@router.get("")
async def keys(service: Service, wallet: AccountReader) -> KeyList:
    """The caller's keys, the newest first, those that are revoked or have expired included."""
    return KeyList(keys=[KeyEntry(**_entry(key)) for key in await service.of_wallet(wallet)])


@router.delete("/{key_id}", status_code=204)
async def revoke(service: Service, wallet: AccountWriter, key_id: str) -> None:
    """A key of the caller's counts no more. Doing it again changes nothing."""
    await service.revoke(wallet, key_id)


def _entry(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": [scope for scope in Scope if scope in key.scopes],
        "limits": KeyLimits(units_per_day=key.units_per_day, requests_per_minute=key.requests_per_minute),
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }
