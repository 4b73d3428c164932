"""Shapes of sign-in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field


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
    signature: Annotated[str, Field(max_length=200)]


class LoginAnswer(BaseModel):
    """A bearer token."""

    token: str
    expires_at: datetime
    wallet_address: str
