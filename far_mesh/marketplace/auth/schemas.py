"""Shapes of sign-in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from far_mesh.marketplace.auth.contract_wallets import MAX_SIGNATURE_BYTES


class NonceRequest(BaseModel):
    """Who wants to sign in."""

    wallet_address: Annotated[str, Field(max_length=64)]


class NonceAnswer(BaseModel):
    """The parts of a sign-in message, and the message itself, ready to be signed."""

    nonce: str
    domain: str
    uri: str
    chain_id: int
    issued_at: datetime
    expiration_time: datetime
    message: str


class LoginRequest(BaseModel):
    """A signed sign-in message."""

    wallet_address: Annotated[str, Field(max_length=64)]
    message: Annotated[str, Field(max_length=4096)]
    signature: Annotated[str, Field(max_length=2 + 2 * MAX_SIGNATURE_BYTES)]


class LoginAnswer(BaseModel):
    """A bearer token."""

    token: str
    expires_at: datetime
    wallet_address: str


class EverywhereRequest(BaseModel):
    """Signing out of all bearer tokens. ``revoke_keys``: of the API keys too."""

    model_config = ConfigDict(extra="forbid")

    revoke_keys: bool = False
