"""The key of the wallet that is paid. It signs here and goes nowhere."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data
from eth_utils.exceptions import ValidationError

from discovery.protocol.ids import Wallet, check_wallet
from far_node.rewards.errors import WalletKeyUnusable

KEY_VARIABLE = "FAR_WALLET_KEY"
API_KEY_VARIABLE = "FAR_API_KEY"
MAX_KEYSTORE_BYTES = 65_536

_API_KEY = re.compile(r"[\w.~+/=-]{8,512}\Z", re.ASCII)
_KEY = re.compile(r"(0x)?[0-9a-fA-F]{64}\Z")


class WalletKey:
    """A private key that only signs."""

    def __init__(self, private_key: str | bytes) -> None:
        """Raises :class:`WalletKeyUnusable` for what is no private key of secp256k1."""
        try:
            self._account = Account.from_key(private_key)
        except (TypeError, ValueError, ValidationError):  # what they say may hold the key
            raise WalletKeyUnusable("the wallet key is not a private key of an EVM wallet") from None
        self.wallet: Wallet = check_wallet(str(self._account.address))

    def __repr__(self) -> str:
        return f"WalletKey({self.wallet})"

    def sign_text(self, text: str) -> str:
        """The signature of a message (EIP-191), which is never that of a transaction."""
        return str(self._account.sign_message(encode_defunct(text=text)).signature.to_0x_hex())

    def sign_typed(self, document: Mapping[str, Any]) -> str:
        """The signature of typed data (EIP-712), which is never that of a transaction."""
        return str(self._account.sign_message(encode_typed_data(full_message=dict(document))).signature.to_0x_hex())

    def sign_transaction(self, transaction: Mapping[str, Any]) -> tuple[str, str]:
        """The signed bytes and the hash of a transaction."""
        signed = self._account.sign_transaction(dict(transaction))
        return signed.raw_transaction.to_0x_hex(), signed.hash.to_0x_hex()


def open_key(keystore: Path | None, ask_password: Callable[[], str]) -> WalletKey:
    """The key in ``keystore`` (Web3 Secret Storage, version 3), or else that of ``FAR_WALLET_KEY``.

    Raises:
        WalletKeyUnusable: neither is there, or it cannot be opened.
    """
    if keystore is not None:
        return WalletKey(_opened(keystore, ask_password))
    text = os.environ.get(KEY_VARIABLE, "").strip()
    if not text:
        raise WalletKeyUnusable(f"the wallet's key is needed: pass --keystore FILE, or set {KEY_VARIABLE}")
    if not _KEY.match(text):
        raise WalletKeyUnusable(f"{KEY_VARIABLE} is not a private key: 64 hexadecimal digits are expected")
    return WalletKey(text)


def api_key() -> str | None:
    """The key in ``FAR_API_KEY``, with which one can look and not take.

    Raises:
        WalletKeyUnusable: what is there is none.
    """
    text = os.environ.get(API_KEY_VARIABLE, "").strip()
    if text and not _API_KEY.match(text):
        raise WalletKeyUnusable(f"{API_KEY_VARIABLE} is not an API key")
    return text or None


def _opened(keystore: Path, ask_password: Callable[[], str]) -> bytes:
    try:
        with keystore.expanduser().open("rb") as file:
            text = file.read(MAX_KEYSTORE_BYTES)
    except OSError as error:
        raise WalletKeyUnusable(f"cannot read the keystore {keystore}: {error.strerror}") from None
    try:
        content = json.loads(text)
        is_one = content["version"] == 3 and "crypto" in {name.lower() for name in content}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_one = False
    if not is_one:
        raise WalletKeyUnusable(f"{keystore} is no keystore file of version 3 (as geth, Foundry and MetaMask know it)")
    try:
        return bytes(Account.decrypt(content, ask_password()))
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        if "MAC" in str(error):
            raise WalletKeyUnusable(f"the password does not open the keystore {keystore}") from None
        raise WalletKeyUnusable(f"the keystore {keystore} is damaged, or of a kind that is not known here") from None
