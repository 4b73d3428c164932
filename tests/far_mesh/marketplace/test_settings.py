"""Settings are read once, checked once, and never show a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from far_mesh.marketplace.app import create_app
from far_mesh.marketplace.errors import InvalidSetting, MissingSetting
from far_mesh.marketplace.settings import ModelOffer, Settings

WHOLE = {
    "FAR_CHAIN_RPC_URL": "http://127.0.0.1:1",
    "FAR_TOKEN_ADDRESS": "0x" + "11" * 20,
    "FAR_ESCROW_ADDRESS": "0x" + "22" * 20,
    "FAR_SETTLER_PRIVATE_KEY": "0x" + "33" * 32,
    "FAR_JWT_SECRET": "a secret that is long enough for HS256",
    "FAR_MODELS": '[{"model": "org/tiny", "completion_price_units": 5}]',
    "FAR_INITIAL_PEERS": '["/ip4/127.0.0.1/tcp/31337"]',
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in WHOLE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_the_environment_becomes_one_value(environment: pytest.MonkeyPatch) -> None:
    settings = Settings.read()
    assert settings.models == (ModelOffer(model="org/tiny", completion_price_units=5),)
    assert settings.initial_peers == ("/ip4/127.0.0.1/tcp/31337",)
    assert (settings.host, settings.port, settings.confirmations) == ("127.0.0.1", 8000, 0)
    assert settings.database.startswith("sqlite+aiosqlite:///")
    assert (settings.domain, settings.uri) == ("127.0.0.1:8000", "http://127.0.0.1:8000")
    create_app(settings)


@pytest.mark.parametrize("name", [name for name in WHOLE if name != "FAR_INITIAL_PEERS"])
def test_what_is_absent_is_named_and_nothing_starts(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.delenv(name)
    with pytest.raises(MissingSetting, match=name) as caught:
        create_app(Settings.read())
    assert caught.value.code == "missing_setting"


async def test_without_a_swarm_to_join_the_meshes_do_not_open(environment: pytest.MonkeyPatch) -> None:
    from far_mesh.marketplace.inference.meshes import swarm_meshes

    environment.delenv("FAR_INITIAL_PEERS")
    with pytest.raises(MissingSetting, match="FAR_INITIAL_PEERS"):
        async with swarm_meshes(Settings.read()):
            pass


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FAR_PORT", "seventy"),
        ("FAR_PORT", "70000"),
        ("FAR_LOCK_SECONDS", "10"),
        ("FAR_OPERATORS", '["0x12"]'),
        ("FAR_OPERATORS", '["0xF39Fd6e51aad88F6F4ce6aB8827279cffFb92266"]'),
        ("FAR_AUTH_CACHE_SECONDS", "-1"),
        ("FAR_LOCATION", "Berlin"),
        ("FAR_LOCATION", "52.5,181"),
        ("FAR_JWT_OTHER_SECRETS", "not a list"),
        ("FAR_MODELS", "[no JSON"),
        ("FAR_MODELS", '[{"model": "a", "completion_price_units": 0}]'),
        ("FAR_MODELS", '[{"model": "a", "completion_price_units": 1}, {"model": "a", "completion_price_units": 1}]'),
    ],
)
def test_what_means_nothing_is_named_and_not_shown(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    with pytest.raises(InvalidSetting, match=name) as caught:
        Settings.read()
    assert value not in caught.value.message


def test_a_short_secret_is_refused(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FAR_JWT_SECRET", "short")
    with pytest.raises(InvalidSetting, match="32 bytes"):
        create_app(Settings.read())


def test_every_secret_of_tokens_is_long_enough(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FAR_JWT_OTHER_SECRETS", f'["{WHOLE["FAR_JWT_SECRET"]}", "brief"]')
    with pytest.raises(InvalidSetting, match="FAR_JWT_OTHER_SECRETS must be at least 32 bytes") as caught:
        create_app(Settings.read())
    assert "brief" not in caught.value.message


def test_a_place_is_a_latitude_and_a_longitude(environment: pytest.MonkeyPatch) -> None:
    assert Settings.read().location is None
    environment.setenv("FAR_LOCATION", "52.5, -13.4")
    assert Settings.read().location == (52.5, -13.4)


def test_operators_are_wallets(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FAR_OPERATORS", '["0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266"]')
    assert Settings.read().operators == ("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",)


def test_secrets_are_never_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("FAR_JWT_OTHER_SECRETS", f'["{"another secret " * 4}"]')
    settings = Settings.read()
    shown = repr(settings) + str(settings) + settings.model_dump_json()
    assert WHOLE["FAR_JWT_SECRET"] not in shown
    assert "another secret" not in shown
    assert WHOLE["FAR_SETTLER_PRIVATE_KEY"] not in shown


def test_a_local_directory_is_sold_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    offer = ModelOffer(model=str(tmp_path / "my-model"), completion_price_units=1)
    assert offer.model_id == offer.display_name == "my-model"
    assert ModelOffer(model="org/tiny", name="Tiny", completion_price_units=1).display_name == "Tiny"
