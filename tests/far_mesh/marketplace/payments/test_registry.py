"""Which provider the settings mean, among the built-in ones and those of packages that are installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from far_mesh.marketplace.errors import InvalidSetting, MissingSetting
from far_mesh.marketplace.payments.errors import (
    MissingExtra,
    PaymentProviderBroken,
    PaymentProviderUnknown,
    PaymentsOff,
)
from far_mesh.marketplace.payments.evm import EvmPayments
from far_mesh.marketplace.payments.none import NoPayments
from far_mesh.marketplace.payments.provider import Block, Coin, PaymentProvider, Payout, SignedPayouts, State, Status
from far_mesh.marketplace.payments.registry import GROUP, open_provider, provider_names
from far_mesh.marketplace.settings import Settings

SHELLS = '''
from far_mesh.marketplace.payments.none import NoPayments
from far_mesh.marketplace.payments.provider import Coin

class Shells(NoPayments):
    """Pays in shells."""

    async def check(self):
        return Coin("SHELL", 0, "beach:1")

def create(settings):
    return Shells()

def clumsy(settings):
    raise KeyError("a secret of the settings")

def wrong(settings):
    return object()

answer = 42
'''

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package on the path, as an installer does: a module, and metadata with an entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name: str, target: str, package: str = "far-shells", code: str = SHELLS) -> None:
        module = package.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {target}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return put


def settings(name: str, **values: Any) -> Settings:
    return Settings.read(payment_provider=name, **values)


async def test_a_provider_of_another_package_works(install: Install) -> None:
    install("shells", "far_shells:create")
    assert "shells" in provider_names()
    provider = open_provider(settings("shells"))
    assert await provider.check() == Coin("SHELL", 0, "beach:1")


def test_an_unknown_name_lists_what_there_is(install: Install) -> None:
    install("shells", "far_shells:create")
    with pytest.raises(PaymentProviderUnknown, match="evm, hyperliquid, none, shells, solana"):
        open_provider(settings("doubloons"))


@pytest.mark.parametrize(
    ("target", "code", "reason"),
    [
        ("nowhere:create", SHELLS, "nowhere is not installed"),
        ("far_shells:missing", SHELLS, "AttributeError"),
        ("far_shells:create", "1 / 0", "ZeroDivisionError"),
        ("far_shells:create", "import somelibrary", "somelibrary is not installed"),
        ("far_shells:answer", SHELLS, "cannot be called"),
        ("far_shells:clumsy", SHELLS, "KeyError"),
        ("far_shells:wrong", SHELLS, "no PaymentProvider"),
    ],
)
def test_a_broken_package_is_named(install: Install, target: str, code: str, reason: str) -> None:
    install("shells", target, code=code)
    with pytest.raises(PaymentProviderBroken, match=reason) as caught:
        open_provider(settings("shells"))
    assert "far-shells" in caught.value.message
    assert "secret" not in caught.value.message


def test_a_name_that_two_packages_claim_is_nobodys(install: Install) -> None:
    install("shells", "far_shells:create")
    install("shells", "far_pearls:create", package="far-pearls")
    with pytest.raises(PaymentProviderBroken, match="far-pearls and far-shells"):
        open_provider(settings("shells"))


def test_no_package_takes_the_place_of_a_built_in_provider(install: Install) -> None:
    install("none", "far_shells:create")
    with pytest.raises(PaymentProviderBroken, match="far-shells"):
        open_provider(settings("none"))


def test_a_missing_library_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "solders"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "far_mesh.marketplace.payments.solana", raising=False)
    monkeypatch.setitem(sys.modules, "solders", None)
    with pytest.raises(MissingExtra, match=r"pip install 'far-mesh\[solana\]'"):
        open_provider(settings("solana"))


def test_the_built_in_providers_say_what_they_miss() -> None:
    for name in ("evm", "hyperliquid", "solana"):
        with pytest.raises(MissingSetting, match="FAR_"):
            open_provider(settings(name))
    values = {"chain_rpc_url": "http://127.0.0.1:9", "settler_private_key": "0x" + "11" * 32}
    assert isinstance(open_provider(settings("hyperliquid", chain_id=998, **values)), EvmPayments)
    assert isinstance(open_provider(settings("evm", token_address="0x" + "11" * 20, **values)), EvmPayments)


@pytest.mark.parametrize("name", ["", "EVM", "../evm", "a b", "x" * 65])
def test_what_is_no_name_is_refused_at_the_door(name: str) -> None:
    with pytest.raises(InvalidSetting, match="FAR_PAYMENT_PROVIDER"):
        settings(name)


async def test_none_refuses_everything_and_says_what_to_set() -> None:
    provider = open_provider(settings("none"))
    assert isinstance(provider, NoPayments)
    signed = SignedPayouts("id", "raw", 0)
    acts = [
        provider.check(),
        provider.verify_deposit("x"),
        provider.explain_address("x"),
        provider.prepare([Payout("x", 1)]),
        provider.hasten(signed),
        provider.send(signed),
        provider.status(signed),
    ]
    for act in acts:
        with pytest.raises(PaymentsOff, match="FAR_PAYMENT_PROVIDER"):
            await act
    await provider.close()


def test_the_interface_is_small_and_every_provider_has_all_of_it() -> None:
    promised = {"check", "verify_deposit", "explain_address", "prepare", "hasten", "send", "status", "close"}
    assert PaymentProvider.__abstractmethods__ == promised
    assert [state for state in State if Status(state, Block(1)).may_pay_again] == [State.FAILED, State.DISPLACED]
