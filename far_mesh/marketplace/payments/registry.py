"""Which payment provider the settings mean: a built-in one, or one of another package.

Another package declares an entry point in the group :data:`GROUP`. Nothing of it is imported unless its name is what
``FAR_PAYMENT_PROVIDER`` says, and it cannot take the name of another.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from discovery.protocol.errors import FarError
from far_mesh.marketplace.payments.errors import MissingExtra, PaymentProviderBroken, PaymentProviderUnknown
from far_mesh.marketplace.payments.provider import PaymentProvider
from far_mesh.marketplace.settings import Settings

GROUP = "far_mesh.payment_providers"
BUILT_IN = ("evm", "hyperliquid", "none", "solana")
LIBRARIES = {"solders": "solana"}
"""Libraries that not everybody has, and the extra that brings them."""

Factory = Callable[[Settings], PaymentProvider]


def open_provider(settings: Settings) -> PaymentProvider:
    """The provider that ``FAR_PAYMENT_PROVIDER`` names. Nothing is asked of any network.

    Raises:
        PaymentProviderUnknown: there is none of that name; the message lists those that are there.
        PaymentProviderBroken: its package cannot be imported, makes no provider, or two packages claim the name.
        MissingExtra: it needs a library that is not installed; the message says what to install.
        MissingSetting, InvalidSetting: the provider misses or cannot use a setting.
    """
    name = settings.payment_provider
    if name in BUILT_IN:
        return _built_in(name)(settings)
    factory, package = _installed(name)
    try:
        provider = factory(settings)
    except FarError:
        raise
    except Exception as error:
        raise _broken(name, package, f"it raised {type(error).__name__}") from error
    if not isinstance(provider, PaymentProvider):
        raise _broken(name, package, f"it made a {type(provider).__name__}, which is no PaymentProvider")
    return provider


def provider_names() -> tuple[str, ...]:
    """Everything that ``FAR_PAYMENT_PROVIDER`` can be here."""
    return tuple(sorted({*BUILT_IN, *entry_points(group=GROUP).names}))


def _built_in(name: str) -> Factory:
    _refuse_impostors(name)
    try:
        factory: Factory = import_module(f"far_mesh.marketplace.payments.{name}").create
    except ModuleNotFoundError as error:
        extra = LIBRARIES.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise MissingExtra(
            f"FAR_PAYMENT_PROVIDER={name} needs {error.name}: run `pip install 'far-mesh[{extra}]'`", extra=extra
        ) from None
    return factory


def _refuse_impostors(name: str) -> None:
    for entry in entry_points(group=GROUP, name=name):
        raise _broken(name, _package(entry), "the name is that of a built-in provider")


def _installed(name: str) -> tuple[Factory, str]:
    found = {(entry.value, _package(entry)): entry for entry in entry_points(group=GROUP, name=name)}
    if not found:
        raise PaymentProviderUnknown(
            f"FAR_PAYMENT_PROVIDER={name} is not known here; there are {', '.join(provider_names())}. "
            "If it comes with a package of its own, install that package",
            setting="FAR_PAYMENT_PROVIDER",
        )
    packages = sorted(package for _, package in found)
    if len(found) > 1:
        raise _broken(name, " and ".join(packages), "more than one package claims the name; uninstall all but one")
    entry = next(iter(found.values()))
    try:
        factory = entry.load()
    except Exception as error:
        what = f"{error.name} is not installed" if isinstance(error, ModuleNotFoundError) else type(error).__name__
        raise _broken(name, packages[0], f"{entry.value} cannot be loaded: {what}") from error
    if not callable(factory):
        raise _broken(name, packages[0], f"{entry.value} cannot be called")
    return factory, packages[0]


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unnamed package"


def _broken(name: str, package: str, why: str) -> PaymentProviderBroken:
    return PaymentProviderBroken(
        f"the payment provider {name} of {package} cannot be used: {why}", setting="FAR_PAYMENT_PROVIDER"
    )
