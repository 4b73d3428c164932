"""The account page: money in and out by the wallet, a payment channel, usage, a key that counts until it is revoked."""

from __future__ import annotations

import re
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from tests.browser.conftest import Enter
from tests.browser.stage import FAR, MODEL, Stage
from tests.browser.visitor import Visitor


def ask(stage: Stage, key: str) -> httpx.Response:
    """What an application does with an API key."""
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 4}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{stage.url}/v1/chat/completions", json=body, headers=headers, timeout=60)


def come_in(visitor: Visitor) -> Page:
    """Signed in, on the account page."""
    page = visitor.open("/account")
    visitor.connect()
    visitor.settle()
    return page


def pay_in(visitor: Visitor, amount: str) -> None:
    """By the form of the page, from its field to its last step."""
    page = visitor.page
    page.get_by_role("textbox", name="Amount").fill(amount)
    page.get_by_role("button", name=re.compile("^Deposit")).click()
    visitor.see(f"{amount} FAR has arrived")


def test_a_deposit_by_the_wallet_shows_in_the_balance_and_goes_back(enter: Enter, newcomer: str) -> None:
    visitor = enter(newcomer)
    assert visitor.wallet is not None
    page = come_in(visitor)
    pay_in(visitor, "5")
    visitor.see("5 FAR", page.get_by_role("region", name="Balance"))
    visitor.see("Allowed", page.get_by_role("list", name="The deposit of 5 FAR"))
    sent = [method for method in visitor.wallet.asked if method.startswith("eth_")]
    assert sent == ["eth_requestAccounts", "eth_signTypedData_v4", "eth_sendTransaction", "eth_sendTransaction"]
    assert visitor.axe() == []
    visitor.picture("account-deposit-light-desktop")

    page.get_by_role("tab", name="Spending limit").click()
    expect(page.get_by_role("tabpanel").get_by_role("definition").first).to_have_text("5 FAR")
    page.get_by_role("button", name="Take the consent back").click()
    visitor.see("The limit is set")
    page.get_by_role("tab", name="Withdraw").click()
    page.get_by_role("button", name="All of it").click()
    page.get_by_role("button", name="Withdraw 5 FAR").click()
    visitor.see("It is in your wallet")
    expect(page.get_by_role("region", name="Balance")).not_to_contain_text("5 FAR")
    page.get_by_role("tab", name="History").click()
    expect(page.get_by_role("row", name="Withdrawn")).to_contain_text("-5 FAR")


def test_a_wallet_on_another_chain_is_asked_to_change_and_one_that_says_no_pays_nothing(
    enter: Enter, newcomer: str
) -> None:
    visitor = enter(newcomer, chain_id=1)
    assert visitor.wallet is not None
    page = come_in(visitor)
    visitor.wallet.rejects = ["eth_signTypedData_v4", "eth_sendTransaction"]
    for step in ("Let the escrow take 5 FAR", "Pay it in"):
        page.get_by_role("textbox", name="Amount").fill("5")
        page.get_by_role("button", name=re.compile("^Deposit")).click()
        failed = page.get_by_role("listitem").filter(has_text=step)
        visitor.see("You said no in your wallet.", failed)
    assert "wallet_switchEthereumChain" in visitor.wallet.asked
    assert "eth_sendTransaction" not in visitor.wallet.asked
    pay_in(visitor, "5")


def test_a_key_is_shown_once_counts_and_is_refused_when_it_was_revoked(
    enter: Enter, stage: Stage, newcomer: str
) -> None:
    stage.deposit(newcomer, 5 * FAR)
    visitor = enter(newcomer)
    page = come_in(visitor)
    page.get_by_role("button", name="Create a key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Create").click()
    visitor.see("A name, by which you know it again.", dialog)
    dialog.get_by_role("textbox", name="Name").fill("my application")
    dialog.get_by_role("button", name="Create").click()
    dialog.get_by_role("button", name="Copy the key").click()
    key = str(page.evaluate("navigator.clipboard.readText()"))
    assert visitor.axe() == []
    page.keyboard.press("Escape")
    assert ask(stage, key).status_code == 200
    page.reload()
    visitor.settle()
    assert key not in page.content(), "it is shown once"
    row = page.get_by_role("row", name="my application")
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_contain_text("revoked")
    assert ask(stage, key).status_code == 401


def test_a_payment_channel_is_opened_topped_up_and_closed(enter: Enter, stage: Stage, newcomer: str) -> None:
    stage.deposit(newcomer, 5 * FAR)
    visitor = enter(newcomer)
    page = come_in(visitor)
    page.get_by_role("tab", name="Payment channels").click()
    dialog = page.get_by_role("dialog")
    for button, field, amount, act, done in (
        ("Open a channel", "FAR to set aside", "2", "Open it", "The channel is open"),
        ("Top up", "FAR to add", "1", "Add it", "It is in the channel"),
    ):
        page.get_by_role("button", name=button).click()
        dialog.get_by_role("textbox", name=field).fill(amount)
        dialog.get_by_role("button", name=act).click()
        visitor.see(done, dialog)
        page.keyboard.press("Escape")
    row = page.get_by_role("table", name="Your payment channels").get_by_role("row", name="your wallet")
    expect(row.get_by_role("cell", name="3 FAR")).to_have_count(2)  # put in, and left
    visitor.see("2 FAR", page.get_by_role("region", name="Balance"))
    row.get_by_role("button", name="Close").click()
    dialog.get_by_role("button", name="Start to close it").click()
    visitor.see("It is being closed", dialog)
    page.keyboard.press("Escape")
    expect(row).to_contain_text("closing until")
    assert visitor.axe() == []


def test_usage_is_shown_and_downloaded_and_all_sessions_are_ended(enter: Enter, stage: Stage) -> None:
    key = stage.resident()
    token = stage.token_of(key)
    visitor = enter(key)
    page = come_in(visitor)
    page.get_by_role("combobox", name="What").select_option("Requests")
    usage = page.get_by_role("figure", name="Requests per day (UTC), by model")
    usage.get_by_text("As a table").click()
    expect(usage.get_by_role("columnheader", name=MODEL)).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    head, *lines = download.value.path().read_text().splitlines()
    assert head.startswith("date,model_id,")
    assert any(f",{MODEL}," in line for line in lines)

    page.get_by_role("button", name="Make a new secret").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Make it").click()
    expect(dialog.get_by_label("the secret", exact=True)).to_have_text(re.compile("^whsec_"))
    page.keyboard.press("Escape")

    headers = {"authorization": f"Bearer {token}"}
    assert httpx.get(f"{stage.url}/api/account/balance", headers=headers, timeout=60).status_code == 200
    page.get_by_role("button", name="Sign out everywhere").click()
    dialog.get_by_role("button", name="Sign out everywhere").click()
    visitor.see("Sign in to see your account")
    assert httpx.get(f"{stage.url}/api/account/balance", headers=headers, timeout=60).status_code == 401
