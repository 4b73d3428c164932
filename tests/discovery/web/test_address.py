"""Nobody chooses the address they come from; who is behind trusted proxies is still told apart."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import httpx
import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from discovery.web.address import Caller, caller_of, find_caller
from far_mesh.marketplace.errors import InvalidSetting
from far_mesh.marketplace.settings import Settings

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("2001:db8:ffff::/48"))
PROXY, OTHER_PROXY, PROXY6 = "10.0.0.1", "10.0.0.2", "2001:db8:ffff::1"
USER, USER6, LIE = "203.0.113.7", "2001:db8::7", "198.51.100.66"


def caller(peer: str | None, *headers: tuple[str, str]) -> Caller:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    return find_caller(peer, Headers(raw=raw), TRUSTED)


def known(address: str) -> Caller:
    return Caller(ip_address(address))


def hidden(address: str) -> Caller:
    return Caller(ip_address(address), hidden=True)


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded"])
def test_what_a_stranger_says_of_itself_is_not_looked_at(name: str) -> None:
    for value in (LIE, f"for={LIE}", "for=10.0.0.9", "10.0.0.9, 10.0.0.8"):
        assert caller(USER, (name, value)) == known(USER)


def test_who_asks_a_trusted_proxy_is_who_asks() -> None:
    assert caller(PROXY, ("X-Forwarded-For", USER)) == known(USER)
    assert caller(PROXY, ("Forwarded", f"for={USER};proto=https;by={PROXY}")) == known(USER)
    assert caller(PROXY6, ("X-Forwarded-For", USER6)) == known(USER6)
    assert caller(PROXY) == known(PROXY), "it asks for itself, as health checks do"


def test_what_stands_before_the_word_of_trusted_ones_is_the_strangers_own() -> None:
    assert caller(PROXY, ("X-Forwarded-For", f"{LIE}, {USER}")) == known(USER)
    assert caller(PROXY, ("X-Forwarded-For", f"10.0.0.9, {LIE}, {USER}, {OTHER_PROXY}")) == known(USER)
    assert caller(PROXY, ("X-Forwarded-For", LIE), ("X-Forwarded-For", USER)) == known(USER), "two lines are one list"
    assert caller(PROXY, ("Forwarded", f"for={LIE}, for={USER}, for={OTHER_PROXY}")) == known(USER)
    quoted = f'for="{LIE}, for=\\"{LIE}", for={USER}'
    assert caller(PROXY, ("Forwarded", quoted)) == known(USER), "a comma in quotes divides nothing"


def test_where_all_are_trusted_the_first_asks() -> None:
    assert caller(PROXY, ("X-Forwarded-For", f"10.0.0.9, {OTHER_PROXY}")) == known("10.0.0.9")


def test_a_header_that_a_proxy_let_through_does_not_count_against_the_one_it_wrote() -> None:
    own = ("X-Forwarded-For", USER)
    assert caller(PROXY, own, ("Forwarded", f"for={LIE}")) == hidden(PROXY)
    assert caller(PROXY, ("Forwarded", f"for={USER}"), ("X-Forwarded-For", LIE)) == hidden(PROXY)
    assert caller(PROXY, own, ("Forwarded", f"for={USER}")) == known(USER), "they say the same"


@pytest.mark.parametrize("unknown", ["unknown", "_hidden", "", "256.1.1.1", "1.2.3", "fe80::1%eth0", "010.0.0.1", "é"])
def test_who_is_not_named_by_an_address_is_hidden_behind_the_last_that_is(unknown: str) -> None:
    assert caller(PROXY, ("X-Forwarded-For", f"{unknown}, {OTHER_PROXY}")) == hidden(OTHER_PROXY)
    assert caller(PROXY, ("X-Forwarded-For", f"{LIE}, {unknown}")) == hidden(PROXY), "and nothing before it counts"
    assert caller(PROXY, ("Forwarded", f'for={LIE}, for="{unknown}"')) == hidden(PROXY)


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "for",
        "for=",
        f"for={USER};for={LIE}",
        f'for="{USER}',
        f"for={USER} {LIE}",
        f"by={PROXY}",
        f"for=[{USER6}]",
        "=;",
    ],
)
def test_what_is_not_of_the_grammar_names_nobody(broken: str) -> None:
    assert caller(PROXY, ("Forwarded", broken)) == hidden(PROXY)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (f"{USER}:4711", USER),
        (f"[{USER6}]", USER6),
        (f"[{USER6}]:4711", USER6),
        (USER6.upper(), USER6),
        (f"::ffff:{USER}", USER),
        (f"[::ffff:{USER}]:80", USER),
    ],
)
def test_an_address_is_the_same_however_it_is_written(written: str, meant: str) -> None:
    assert caller(PROXY, ("X-Forwarded-For", f" {written} ")) == known(meant)
    assert caller(PROXY, ("Forwarded", f'For="{written}" ; proto=http')) == known(meant)


def test_ipv4_that_comes_as_ipv6_is_ipv4() -> None:
    assert caller(f"::ffff:{USER}") == known(USER)
    assert caller(f"::ffff:{PROXY}", ("X-Forwarded-For", USER)) == known(USER)


@pytest.mark.parametrize("peer", [None, "", "testclient", "/run/far.sock"])
def test_a_connection_without_an_address_has_none_and_nobody_speaks_for_it(peer: str | None) -> None:
    assert caller(peer, ("X-Forwarded-For", USER)) == Caller(None)


@given(st.lists(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=40), max_size=3))
def test_nothing_that_can_be_sent_before_it_changes_what_a_proxy_appends(lies: list[str]) -> None:
    said = [("X-Forwarded-For", lie) for lie in lies]
    assert caller(PROXY, *said, ("X-Forwarded-For", USER)) == known(USER)
    told = caller(PROXY, *[("Forwarded", lie) for lie in lies], ("Forwarded", f"for={USER}"))
    assert told in (known(USER), hidden(PROXY)), "what breaks the grammar hides; it never names another"


async def test_the_setting_says_whose_word_counts() -> None:
    app = FastAPI()
    app.state.trusted_proxies = Settings(trusted_proxies=("127.0.0.0/8", "::1")).trusted_proxies

    @app.get("/")
    async def who(request: Request) -> str:
        return str(caller_of(request).address)

    for peer, found in (("127.0.0.1", USER), (LIE, LIE)):
        transport = httpx.ASGITransport(app, client=(peer, 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://far") as http:
            assert (await http.get("/", headers={"x-forwarded-for": USER})).json() == found


@pytest.mark.parametrize("everybody", ['["0.0.0.0/0"]', '["::/0"]', '["10.0.0.1/8"]', '["proxy"]', "10.0.0.1"])
def test_proxies_are_networks_and_never_everybody(monkeypatch: pytest.MonkeyPatch, everybody: str) -> None:
    monkeypatch.setenv("FAR_TRUSTED_PROXIES", everybody)
    with pytest.raises(InvalidSetting, match="FAR_TRUSTED_PROXIES"):
        Settings.read()
