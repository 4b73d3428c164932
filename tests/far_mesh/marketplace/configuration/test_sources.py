"""Flags come before the environment before the file before defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from discovery.settings import DEFAULT, ENVIRONMENT, FLAG
from far_mesh.marketplace.configuration import files
from far_mesh.marketplace.configuration.sources import gather
from far_mesh.marketplace.errors import InvalidSetting
from far_mesh.marketplace.settings import Settings


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home and a directory of its own, and no file that is named."""
    monkeypatch.delenv("FAR_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_who_comes_first_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.toml", 'host = "::1"\nport = 1\nquote_seconds = 2\n')
    monkeypatch.setenv("FAR_PORT", "2")
    monkeypatch.setenv("far_quote_seconds", "3")
    settings = Settings.read(file, port=3)
    assert (settings.host, settings.port, settings.quote_seconds, settings.jwt_seconds) == ("::1", 3, 3, 3600)
    said = gather(Settings, {"port": 3}, file)
    assert [said.origin(name) for name in ("host", "port", "quote_seconds", "jwt_seconds")] == [
        str(file),
        FLAG,
        ENVIRONMENT,
        DEFAULT,
    ]


def test_who_says_a_table_says_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(
        tmp_path / "a.toml",
        """
        [[models]]
        model = "org/tiny"
        completion_price_units = 5
        [models.tiers.premium]
        completion_price_units = 9
        [tiers.premium]
        price_factor_bps = 20000
        """,
    )
    settings = Settings.read(file)
    assert settings.models[0].tiers["premium"].completion_price_units == 9
    assert settings.tiers.premium.price_factor_bps == 20_000
    monkeypatch.setenv("FAR_TIERS", "{}")
    assert Settings.read(file).tiers == Settings().tiers


def test_the_first_file_that_exists_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.find() is None
    home = write(tmp_path / "home" / ".far" / "far-mesh.toml", "port = 4")
    assert files.find() == home
    write(Path("far-mesh.toml"), "port = 3")
    assert Settings.read().port == 3
    monkeypatch.setenv("FAR_CONFIG", str(write(tmp_path / "b.toml", "port = 2")))
    assert Settings.read().port == 2
    assert Settings.read(write(tmp_path / "c.toml", "port = 1")).port == 1
    monkeypatch.setenv("FAR_CONFIG", "")
    assert files.find() is None


def test_a_file_that_was_asked_for_has_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSetting, match=r"no file of settings at .*absent\.toml"):
        Settings.read(tmp_path / "absent.toml")
    monkeypatch.setenv("FAR_CONFIG", str(tmp_path))
    with pytest.raises(InvalidSetting, match="no file of settings"):
        Settings.read()


@pytest.mark.parametrize("content", [b"port = ", b"port = 1\nport = 2", b"\xff", b"jwt_secret = hunter2"])
def test_what_is_no_toml_is_named_and_not_shown(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(content)
    with pytest.raises(InvalidSetting, match=r"a\.toml is not TOML") as caught:
        Settings.read(file)
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("jwt_secrt = 'x'", "did you mean 'jwt_secret'"),
        ("FAR_PORT = 1", "did you mean 'port'"),
        ("jwt-secret = 'x'", "did you mean 'jwt_secret'"),
        ("models = [{model = 'a', completion_price = 1, completion_price_units = 1}]", "'completion_price_units'"),
        (
            "models = [{model = 'a', completion_price_units = 1, tiers = {premium = {promt_price_units = 1}}}]",
            "'prompt_price_units'",
        ),
        ("tiers = {premium = {price_factor = 1}}", "'price_factor_bps'"),
    ],
)
def test_an_unknown_key_is_an_error_that_guesses(tmp_path: Path, text: str, guess: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.read(write(tmp_path / "a.toml", text))
    assert guess in caught.value.message
    assert "a.toml" in caught.value.message


def test_an_unknown_key_that_resembles_nothing_is_an_error_too(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="there is no setting 'zzz'") as caught:
        Settings.read(write(tmp_path / "a.toml", "zzz = 1"))
    assert "did you mean" not in caught.value.message
