"""Who asks, as a value: a wallet, what it is here, what it may do now, and how it proved itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from discovery.protocol.ids import Wallet


class Role(StrEnum):
    """USER: any wallet. PROVIDER: one that nodes name as theirs. OPERATOR: one of ``FAR_OPERATORS``."""

    USER = "user"
    PROVIDER = "provider"
    OPERATOR = "operator"


class Scope(StrEnum):
    """What can be done with a credential. Beside the scope a route may ask for a role."""

    INFERENCE = "inference"
    ACCOUNT_READ = "account:read"
    ACCOUNT_WRITE = "account:write"
    PROVIDER = "provider"
    OPERATOR = "operator"


@dataclass(frozen=True)
class TokenProof:
    """A bearer token: the wallet has signed in."""

    token_id: str
    expires_at: datetime


@dataclass(frozen=True)
class KeyProof:
    """An API key that the wallet has made. ``units_per_day``: what may be spent with it, None without a limit."""

    key_id: str
    units_per_day: int | None


@dataclass(frozen=True)
class Principal:
    """Whoever asks. ``scopes`` are those of the credential, within what the roles allow."""

    wallet: Wallet
    roles: frozenset[Role]
    scopes: frozenset[Scope]
    proof: TokenProof | KeyProof

    @property
    def api_key_id(self) -> str | None:
        """The API key that asks; None for a wallet that has signed in itself."""
        return self.proof.key_id if isinstance(self.proof, KeyProof) else None


def roles_of(*, serves: bool, operates: bool) -> frozenset[Role]:
    """The roles of a wallet: ``serves`` when nodes name it, ``operates`` when the settings do."""
    extra = {Role.PROVIDER: serves, Role.OPERATOR: operates}
    return frozenset({Role.USER, *(role for role, has in extra.items() if has)})


def scopes_of(roles: frozenset[Role], granted: frozenset[Scope] = frozenset(Scope)) -> frozenset[Scope]:
    """What ``granted`` comes to with these roles: only operators do what is for operators, whatever a key once got."""
    return granted if Role.OPERATOR in roles else granted - {Scope.OPERATOR}
