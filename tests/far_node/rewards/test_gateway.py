"""What a gateway may have signed: a sign-in message for us, at the place that was called, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from discovery.protocol.errors import InvalidArgument
from far_mesh.marketplace.auth.siwe import SignIn
from far_node.rewards.errors import GatewayUnintelligible
from far_node.rewards.gateway import Gateway, check_message
from tests.support.documents import wallet_of

WALLET = wallet_of("provider")
NOW = datetime(2026, 11, 21, 16, 0, tzinfo=UTC)


def offer(
    domain: str = "far.example", wallet: str = WALLET, uri: str = "https://far.example", said: str = "Sign in."
) -> str:
    until = NOW + timedelta(minutes=5)
    return SignIn(domain, wallet, uri, 56, "0123456789abcdef", NOW, until, statement=said).text()


@pytest.mark.parametrize("domain", ["far.example", "127.0.0.1:8000", "[::1]:8000"])
def test_the_message_of_our_gateway_is_signed(domain: str) -> None:
    check_message(offer(domain, uri=f"http://{domain}"), domain, WALLET)
    check_message(offer(domain, uri=f"http://{domain}/a/path"), domain, WALLET)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "I owe you everything.",
        offer(wallet=wallet_of("somebody else")),
        offer() + "\n",
        offer() + "\nResources:\n- https://evil.example",
        "\n" + offer(),
        offer().replace("Version: 1", "Version: 2"),
        offer().replace("Chain ID: 56", "Chain ID: 0x38"),
        offer(said="one\ntwo"),
        offer(said="ünïcode"),
    ],
)
def test_anything_else_is_not(message: str) -> None:
    with pytest.raises(GatewayUnintelligible, match="no sign-in message for this wallet"):
        check_message(message, "far.example", WALLET)


@pytest.mark.parametrize(
    ("domain", "uri"),
    [
        ("bank.example", "https://bank.example"),
        ("bank.example", "https://far.example"),
        ("far.example", "https://bank.example"),
        ("far.example:8000", "https://far.example:8000"),
        ("far.example", "https://far.example.bank.example"),
        ("far.example", "https://far.example@bank.example"),
    ],
)
def test_the_message_of_another_place_is_not(domain: str, uri: str) -> None:
    with pytest.raises(GatewayUnintelligible, match="signs in for"):
        check_message(offer(domain, uri=uri), "far.example", WALLET)


@pytest.mark.parametrize("url", ["", "far.example", "ftp://far.example", "http://", "https://far.example?x=1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(InvalidArgument, match="not the address of a gateway"):
        Gateway(url)
