"""The key of the wallet: opened or refused, and never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account import Account

from far_node.rewards.errors import WalletKeyUnusable
from far_node.rewards.wallet import KEY_VARIABLE, WalletKey, open_key

KEY = "0x" + "4c" * 32
PASSWORD = "correct horse battery staple"


def no_password() -> str:
    raise AssertionError("nobody should be asked")


@pytest.fixture(scope="module")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "wallet.json"
    path.write_text(json.dumps(Account.encrypt(bytes.fromhex(KEY[2:]), PASSWORD, kdf="pbkdf2", iterations=2)))
    return path


def test_a_keystore_opens_with_its_password(keystore: Path) -> None:
    assert open_key(keystore, lambda: PASSWORD).wallet == Account.from_key(KEY).address


def test_the_keystore_comes_before_the_environment(keystore: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "0x" + "11" * 32)
    assert open_key(keystore, lambda: PASSWORD).wallet == Account.from_key(KEY).address
    assert open_key(None, no_password).wallet == Account.from_key("0x" + "11" * 32).address


def test_a_wrong_password(keystore: Path) -> None:
    with pytest.raises(WalletKeyUnusable, match="password does not open"):
        open_key(keystore, lambda: "wrong")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[3]",
        b'{"version": 3}',
        b'{"version": 1, "crypto": {}}',
        b'{"version": 3, "crypto": {}}',
        b'{"version": 3, "crypto": {"kdf": "none"}}',
        b"\xff\xfe",
        b"[" * 30_000,
    ],
)
def test_a_file_that_is_no_keystore(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(WalletKeyUnusable, match=r"no keystore|damaged"):
        open_key(path, lambda: PASSWORD)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WalletKeyUnusable, match="No such file"):
        open_key(tmp_path / "nothing", no_password)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "--keystore FILE, or set FAR_WALLET_KEY"),
        ("secret", "64 hexadecimal digits"),
        ("0x" + "00" * 32, "not a private key"),
        ("ff" * 32, "not a private key"),
        ("٠" * 64, "64 hexadecimal digits"),
    ],
)
def test_a_key_of_the_environment_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.setenv(KEY_VARIABLE, text)
    with pytest.raises(WalletKeyUnusable, match=words) as refused:
        open_key(None, no_password)
    assert text.removeprefix("0x") not in refused.value.message or not text


def test_a_key_does_not_show_itself() -> None:
    assert "4c4c" not in repr(WalletKey(KEY))
