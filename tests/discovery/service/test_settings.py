"""Flags before variables before a file before defaults; what means nothing is named and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from discovery.service.settings import Settings
from discovery.web.errors import InvalidSetting


def test_who_comes_first_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "far-discovery.toml"
    file.write_text('host = "192.0.2.1"\nport = 1\nexpiry_seconds = 60\ninitial_peers = ["/ip4/192.0.2.1/tcp/1"]\n')
    monkeypatch.setenv("FAR_DISCOVERY_PORT", "2")
    monkeypatch.setenv("FAR_DISCOVERY_EXPIRY_SECONDS", "90")
    monkeypatch.setenv("FAR_DISCOVERY_TRUSTED_PROXIES", '["10.0.0.0/8"]')
    settings = Settings.read(file, expiry_seconds=100)
    assert (settings.host, settings.port, settings.expiry_seconds) == ("192.0.2.1", 2, 100)
    assert settings.initial_peers == ("/ip4/192.0.2.1/tcp/1",)
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8"]
    assert (settings.renew_seconds, settings.uri) == (30, "http://192.0.2.1:2")


def test_the_file_is_found_where_it_was_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "far-discovery.toml").write_text("port = 7\n")
    assert Settings.read().port == 8001, "the tests say: no file"
    monkeypatch.delenv("FAR_DISCOVERY_CONFIG")
    assert Settings.read().port == 7
    monkeypatch.setenv("FAR_DISCOVERY_CONFIG", str(tmp_path / "missing.toml"))
    with pytest.raises(InvalidSetting, match="no file of settings"):
        Settings.read()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('port = "secret"', "FAR_DISCOVERY_PORT"),
        ("expiry_seconds = 0", "FAR_DISCOVERY_EXPIRY_SECONDS"),
        ('trusted_proxies = ["0.0.0.0/0"]', "anybody can say to be somebody else"),
        ('metrics_token = "secret"', "at least 16 characters"),
        ('dht_prefix = "private/acme/12D3KooW"', "to its members alone"),
        ("expiry_second = 1", "did you mean 'expiry_seconds'"),
        ('watched_models = [""]', "FAR_DISCOVERY_WATCHED_MODELS"),
        (f"watched_models = {[str(number) for number in range(65)]}", "FAR_DISCOVERY_WATCHED_MODELS"),
        ("port =", "is not TOML"),
    ],
)
def test_what_means_nothing_is_named(tmp_path: Path, line: str, words: str) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(line + "\n")
    with pytest.raises(InvalidSetting, match=words) as caught:
        Settings.read(file)
    assert "secret" not in caught.value.message


def test_a_variable_that_is_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAR_DISCOVERY_INITIAL_PEERS", "/ip4/192.0.2.1")
    with pytest.raises(InvalidSetting, match="FAR_DISCOVERY_INITIAL_PEERS is not usable: it must be JSON"):
        Settings.read()


def test_the_address_that_is_signed_for() -> None:
    assert Settings(host="::1", port=1).uri == "http://[::1]:1"
    assert Settings(public_uri="https://discovery.example/").uri == "https://discovery.example"
