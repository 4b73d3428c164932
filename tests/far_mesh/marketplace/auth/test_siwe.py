"""The parser accepts sign-in messages and nothing that only looks like one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from discovery.web.wallets import signer_of
from far_mesh.marketplace.auth.siwe import SignIn, parse
from far_mesh.marketplace.errors import BadSignature, SignInMismatch

KEY = "0x" + "42" * 32
WALLET = Account.from_key(KEY).address
ISSUED = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
MESSAGE = SignIn("far.test", WALLET, "https://far.test", 56, "abcdef0123456789", ISSUED, ISSUED + timedelta(minutes=5))
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def test_what_is_written_is_read() -> None:
    assert parse(MESSAGE.text()) == MESSAGE


def test_the_example_of_the_standard_is_read() -> None:
    text = (
        "service.org wants you to sign in with your Ethereum account:\n"
        "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2\n\n"
        "I accept the ServiceOrg Terms of Service: https://service.org/tos\n\n"
        "URI: https://service.org/login\nVersion: 1\nChain ID: 1\nNonce: 32891756\n"
        "Issued At: 2021-09-30T16:25:24Z\nExpiration Time: 2021-09-30T16:30:24Z"
    )
    found = parse(text)
    assert (found.domain, found.chain_id, found.nonce) == ("service.org", 1, "32891756")


def test_without_a_statement_it_is_read_too() -> None:
    text = MESSAGE.text().replace(f"{MESSAGE.statement}\n\n", "\n")
    assert parse(text).statement is None


TEXT = MESSAGE.text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sign in to Far Mesh",
        TEXT + "\n",
        "\n" + TEXT,
        TEXT + "\nResources:\n- https://elsewhere.test",
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("Version: 1", "Version: 2"),
        TEXT.replace(WALLET, WALLET.lower()),
        TEXT.replace("Chain ID: 56", "Chain ID: 0x38"),
        TEXT.replace("Chain ID: 56", "Chain ID: 056"),
        TEXT.replace("Nonce: abcdef0123456789", "Nonce: short"),
        TEXT.replace("Nonce: abcdef0123456789", "Nonce: abcdef0123456789\nNonce: abcdef0123456789"),
        TEXT.replace("Issued At: 2026-01-02", "Issued At: 2026-13-02"),
        TEXT.split("\nExpiration")[0],
        TEXT.replace("far.test wants", "far.test\nevil.test wants"),
        TEXT.replace("Sign in to", "Sign in t\u00f6"),
        TEXT.replace(WALLET, WALLET + " "),
        "x" * 5_000,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SignInMismatch):
        parse(text)


def test_the_signer_is_recovered() -> None:
    assert signer_of(TEXT, sign(TEXT)) == WALLET


def sign(text: str) -> str:
    return str(Account.sign_message(encode_defunct(text=text), KEY).signature.to_0x_hex())


def test_the_twin_with_a_high_s_is_refused_though_it_recovers_to_the_same_wallet() -> None:
    raw = bytes.fromhex(sign(TEXT)[2:])
    high = ORDER - int.from_bytes(raw[32:64])
    twin = raw[:32] + high.to_bytes(32) + bytes([27 + 28 - raw[64]])
    assert Account.recover_message(encode_defunct(text=TEXT), signature=twin) == WALLET
    with pytest.raises(BadSignature, match="malleable"):
        signer_of(TEXT, "0x" + twin.hex())


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "0x",
        "0x" + "00" * 65,
        "0x" + "ff" * 65,
        sign(TEXT)[2:],
        sign(TEXT)[:-2],
        sign(TEXT) + "00",
        sign(TEXT)[:-2] + "1d",
        "0x" + "00" * 32 + sign(TEXT)[66:],
    ],
)
def test_what_no_wallet_would_make_is_refused(signature: str) -> None:
    with pytest.raises(BadSignature):
        signer_of(TEXT, signature)
