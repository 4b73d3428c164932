"""The wallet of a private key, by eth-account: ``pip install 'farlabs[wallet]'``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from farlabs.errors import FarLabsError
from farlabs.signing import TypedData

if TYPE_CHECKING:
    from eth_account.signers.base import BaseAccount


class AccountSigner:
    """Signs with an account of eth-account's, such as ``Account.create()`` or one out of a keystore."""

    def __init__(self, account: BaseAccount) -> None:
        self._account: Any = account

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address})"

    @property
    def address(self) -> str:
        """In EIP-55 form."""
        return str(self._account.address)

    def sign_message(self, message: str) -> str:
        """EIP-191 signature of a text."""
        from eth_account.messages import encode_defunct

        return _hexadecimal(self._account.sign_message(encode_defunct(text=message)).signature)

    def sign_typed_data(self, data: TypedData) -> str:
        """EIP-712 signature."""
        types = {name: [dict(field) for field in fields] for name, fields in data.types.items()}
        signed = self._account.sign_typed_data(dict(data.domain), types, dict(data.message))
        return _hexadecimal(signed.signature)


class PrivateKeySigner(AccountSigner):
    """The wallet of a private key: 0x and 64 hexadecimal digits.

    Raises:
        FarLabsError: ``cannot_sign``, ``invalid_key``.
    """

    def __init__(self, private_key: str) -> None:
        try:
            from eth_account import Account
        except ImportError:
            raise FarLabsError(
                "a private key needs eth-account: pip install 'farlabs[wallet]'", code="cannot_sign"
            ) from None
        try:
            account = Account.from_key(private_key)
        except Exception:  # of many kinds, some of which tell the key
            raise FarLabsError("this is no private key: 0x and 64 hexadecimal digits", code="invalid_key") from None
        super().__init__(account)


def _hexadecimal(signature: bytes) -> str:
    return "0x" + bytes(signature).hex()
