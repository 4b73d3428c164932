"""The operator's page: what runs, what was settled, and what is changed by a click; nothing of it for others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from far_mesh.marketplace.chain.client import address_of
from tests.browser.conftest import Enter
from tests.browser.stage import MODEL, PRICE_UNITS, SPANS, Stage, new_key, wait_until
from tests.browser.visitor import DESKTOP, PHONE, Theme, Visitor

PARTS = ("Now", "Nodes", "Settlement", "Prices", "Tiers and pools")


@pytest.fixture
def gateway(stage: Stage) -> Iterator[httpx.Client]:
    """The same gateway, asked by the operator without a browser."""
    headers = {"authorization": f"Bearer {stage.token_of(stage.operator)}"}
    with httpx.Client(base_url=stage.url, timeout=60, headers=headers) as http:
        yield http


def settled(gateway: httpx.Client) -> Any:
    found = gateway.get("/api/operator/settlement").json()
    return found["waiting"]["requests"] == 0 and [one["status"] for one in found["batches"]][:1] == ["confirmed"]


def entered(enter: Enter, key: str, **how: Any) -> Visitor:
    visitor = enter(key, **how)
    visitor.open("/operator")
    visitor.connect()
    visitor.settle()
    return visitor


def part(page: Page, name: str) -> Locator:
    page.get_by_role("tab", name=name, exact=True).click()
    return page.get_by_role("tabpanel")


@pytest.mark.parametrize(("theme", "size"), [("light", DESKTOP), ("dark", PHONE)])
def test_an_operator_sees_what_runs_and_what_was_paid(
    enter: Enter, stage: Stage, gateway: httpx.Client, theme: Theme, size: tuple[int, int]
) -> None:
    stage.resident()
    wait_until(lambda: settled(gateway))
    visitor = entered(enter, stage.operator, theme=theme, size=size)
    page, found = visitor.page, []
    name = f"operator-{theme}-{'desktop' if size == DESKTOP else 'phone'}"
    for number, title in enumerate(PARTS):
        panel = part(page, title)
        visitor.settle()
        visitor.picture(f"{name}-{number}")
        found += [f"{title}: {violation}" for violation in visitor.axe()]
        if visitor.scrolls_sideways():
            found.append(f"{title}: is wider than the screen")
        if title == "Now":
            expect(panel.get_by_role("region", name=MODEL)).to_contain_text("Sessions open0 of")
            expect(panel.get_by_text("(this one)")).to_be_visible()
        elif title == "Nodes":
            rows = panel.get_by_role("row").filter(has_text="ready")  # one that has left is announced for a while
            expect(rows).to_have_count(len(SPANS))
            panel.get_by_role("button", name="Ask for advice").click()
            expect(panel.get_by_role("region", name=f"Advice for {MODEL}")).to_contain_text("blocks 0–3")
        elif title == "Settlement":
            expect(panel.get_by_role("table").get_by_text("confirmed").first).to_be_visible()
    assert found == []


def test_a_price_that_an_operator_sets_is_asked_at_once(enter: Enter, stage: Stage, gateway: httpx.Client) -> None:
    def asked() -> Any:
        return gateway.get("/api/inference/models").json()["models"][0]["completion_price_units"]

    page = entered(enter, stage.operator).page
    panel, dialog = part(page, "Prices"), page.get_by_role("dialog")
    change = panel.get_by_role("button", name=f"Change the standard price of {MODEL}")
    change.click()
    answer = dialog.get_by_label("1,000 tokens of answer, FAR")
    expect(answer).to_have_value("0.1")
    answer.fill("0")
    expect(dialog.get_by_text("An answer is never free")).to_be_visible()
    expect(dialog.get_by_role("button", name="Set the price")).to_be_disabled()
    answer.fill("0.25")
    try:
        dialog.get_by_role("button", name="Set the price").click()
        row = panel.get_by_role("row").filter(has_text="standard").first
        expect(row).to_contain_text("set by an operator")
        expect(row).to_contain_text("0.25 FAR")
        assert asked() == 250_000
        change.click()
        dialog.get_by_role("button", name="Leave it to the settings").click()
        expect(row).to_contain_text("settings of the gateway")
        assert asked() == PRICE_UNITS
    finally:
        nothing = {"model_id": MODEL, "tier": "standard", "price": None}
        assert gateway.put("/api/operator/prices", json=nothing).status_code == 200


def test_an_operator_puts_an_account_into_a_tier_and_back_and_gives_it_nodes(
    enter: Enter, stage: Stage, gateway: httpx.Client
) -> None:
    account = address_of(new_key())

    def tier() -> Any:
        return gateway.get(f"/api/operator/tiers/{account}").json()

    page = entered(enter, stage.operator).page
    panel = part(page, "Tiers and pools")
    panel.get_by_label("Wallet", exact=True).fill(account)
    panel.get_by_label("Last day").fill("2099-12-31")
    panel.get_by_role("button", name="Put it into premium").click()
    back = panel.get_by_role("button", name=f"Back to standard for {account}")
    expect(back).to_be_visible()
    assert (tier()["tier"], tier()["until"][:10]) == ("premium", "2099-12-31")

    member = stage.nodes[0].peer_id
    panel.get_by_label("Wallet of the account").fill(account)
    panel.get_by_role("button", name="Show its pool").click()
    pool = panel.get_by_role("form", name=f"Pool of {account}")
    pool.get_by_role("textbox").fill("nonsense")
    expect(pool.get_by_text("nonsense is neither")).to_be_visible()
    pool.get_by_role("textbox").fill(member)
    pool.get_by_role("button", name="Save the pool").click()
    expect(pool.get_by_text("The pool has 1 member")).to_be_visible()
    assert gateway.get(f"/api/operator/pools/{account}").json()["members"] == [member]

    back.click()
    page.get_by_role("dialog").get_by_role("button", name="Put it back").click()
    expect(back).to_be_hidden()
    assert tier()["tier"] == "standard"


def test_another_wallet_is_told_why_it_sees_nothing(enter: Enter) -> None:
    visitor = entered(enter, new_key())
    visitor.see("This page is for operators")
    visitor.see("FAR_OPERATORS")
    expect(visitor.page.get_by_role("tab")).to_have_count(0)
    assert visitor.axe() == []
