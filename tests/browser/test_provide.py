"""A provider's way: the command from the page, a node that runs by it, the claim, the earnings, the withdrawal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Enter
from tests.browser.stage import MODEL, STORY, Stage, wait_until
from tests.browser.visitor import PHONE, Visitor
from tests.far_mesh.marketplace.house import Loop
from tests.support.swarm import END_SECONDS, READY_SECONDS, Process, run_command

NODE = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
WALLET = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


def copied(page: Page, what: str) -> str:
    """What the button beside a piece of code puts into the clipboard."""
    page.get_by_role("button", name=f"Copy {what}").click()
    expect(page.get_by_role("button", name=f"Copied: {what}")).to_be_visible()
    return str(page.evaluate("navigator.clipboard.readText()"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and any port: others run nodes on this machine too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FAR_NODE_HOST_MADDR", "/ip4/127.0.0.1/tcp/0")
    monkeypatch.setenv("FAR_NODE_THREADS", "1")
    return tmp_path


def words_of(command: str, machine: Path) -> list[str]:
    """What a shell passes to ``far-node``, which takes the place of that program for a moment."""
    program = machine / "far-node"
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    program.chmod(0o755)
    path = f"{machine}:{os.environ['PATH']}"
    done = subprocess.run(["sh", "-c", command], env={"PATH": path}, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def nodes_of(stage: Stage, wallet: str) -> list[str]:
    """The ids of those that announce it."""
    nodes = httpx.get(f"{stage.url}/api/nodes/active/{MODEL}", timeout=60).json()["nodes"]
    return [node["node_id"] for node in nodes if node["wallet_address"] == wallet]


def announced(stage: Stage, node: Process, wallet: str) -> str:
    """The id of the node that was started, once the gateway has heard of it."""

    def is_there() -> bool:
        assert node.popen.poll() is None, node.story()
        return bool(nodes_of(stage, wallet))

    wait_until(is_there, READY_SECONDS)
    (node_id,) = nodes_of(stage, wallet)
    return node_id


def test_the_command_of_the_page_starts_a_node_that_its_wallet_then_claims(
    enter: Enter, stage: Stage, newcomer: str, machine: Path
) -> None:
    visitor = enter(newcomer)
    wallet = visitor.wallet
    assert wallet is not None
    page = visitor.open("/gpu/distributed")
    visitor.see("The address of your wallet is missing")
    visitor.connect()
    expect(page.get_by_label("Address that is paid")).to_have_value(wallet.address)
    page.get_by_role("combobox", name="GPU").select_option("cpu")
    page.get_by_label("Free memory, in GiB").fill("8")
    visitor.see("all blocks fit")
    starting = words_of(copied(page, "the command that starts the node"), machine)
    claiming = words_of(copied(page, "the command that binds the node to your wallet"), machine)
    node = stage.town.start("provided", ["far_node.cli", *starting])
    try:
        node_id = announced(stage, node, wallet.address)
        said = run_command("far_node.cli", *claiming)
        link = re.search(r"http\S+/claim#\S+", said.out)
        assert link is not None, said.err

        page.goto(link[0])
        visitor.see(node_id)
        visitor.picture("claim-link")
        assert visitor.axe() == []
        wallet.rejects.append("eth_signTypedData_v4")
        page.get_by_role("button", name="Sign the claim").click()
        visitor.see("You said no in your wallet")
        page.get_by_role("button", name="Sign the claim").click()
        visitor.see("The node is yours")
        page.get_by_role("link", name="See what it earns").click()
        article = page.get_by_role("article").filter(has=page.get_by_title(node_id))
        visitor.see("serving", article)
        visitor.see(f"{MODEL}: blocks", article)
        visitor.see("Reliability: not measured", article)
        expect(article.get_by_text("not claimed")).to_have_count(0)
    finally:
        node.send(signal.SIGTERM)
        try:
            node.wait()
        finally:
            node.kill()
        wait_until(lambda: not nodes_of(stage, wallet.address), END_SECONDS)


def test_earnings_rise_by_themselves_and_are_withdrawn(enter: Enter, stage: Stage) -> None:
    key = stage.resident()
    visitor = enter(key)
    assert visitor.wallet is not None
    address = visitor.wallet.address
    page = visitor.open("/provider/dashboard")
    visitor.connect()
    earned = page.locator("dl").first.locator("dd").first
    expect(earned).to_contain_text("FAR")
    before = earned.inner_text()
    stage.tell(key, STORY)
    expect(earned).not_to_have_text(before)

    button = page.get_by_role("button", name=re.compile(r"^Withdraw \d"))
    expect(button).to_be_enabled()
    wait_until(lambda: not settling(stage, key))  # so that nothing is added between the look and the withdrawal
    had, credit = on_chain(stage, address)
    assert credit > 0
    visitor.wallet.rejects.append("eth_sendTransaction")
    button.click()
    visitor.see("You said no in your wallet")
    button.click()
    visitor.see("It is in your wallet")
    assert on_chain(stage, address) == (had + credit, 0)


def test_what_a_node_did_is_told_and_proven(enter: Enter, stage: Stage) -> None:
    visitor = enter(stage.resident())
    page = visitor.open("/provider/dashboard")
    visitor.connect()
    table = page.get_by_role("table", name="What your nodes did for which request")
    expect(table.get_by_role("row").nth(1)).to_contain_text("token-layers")
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("^Download receipt")).first.click()
    assert '"signature"' in download.value.path().read_text()

    article = page.get_by_role("article").filter(has_text=re.compile(r"Reliability: \d"))
    expect(article.first).to_contain_text("Reacheddirectly")
    article.first.get_by_text(re.compile("^Reliability")).click()
    for words in ("Dependable", "its work was done and proven", "every request done adds to it"):
        visitor.see(words, article.first)
    assert visitor.axe() == []


def on_chain(stage: Stage, wallet: str) -> tuple[int, int]:
    """What lies in a wallet, and what it can withdraw, in wei."""

    async def ask() -> tuple[int, int]:
        chain = stage.chain.connect()
        try:
            return await chain.token_balance_wei(wallet), await chain.credit_of_wei(wallet)
        finally:
            await chain.close()

    loop = Loop()
    try:
        return loop.do(ask())
    finally:
        loop.close()


def settling(stage: Stage, key: str) -> bool:
    """Whether something that was earned is not paid yet."""
    headers = {"authorization": f"Bearer {stage.token_of(key)}"}
    found = httpx.get(f"{stage.url}/api/provider/rewards", headers=headers, timeout=60).json()
    return bool(found["waiting_units"] or found["in_flight_units"])


def test_a_provider_who_has_nothing_is_led_to_the_beginning(enter: Enter, newcomer: str) -> None:
    visitor = enter(newcomer, size=PHONE)
    page = visitor.open("/provider/dashboard")
    visitor.see("Connect a wallet to see what your nodes earn")
    visitor.connect()
    visitor.see("None of your nodes has earned yet")
    assert visitor.axe() == []
    page.get_by_role("link", name="Start a node").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Provide a GPU")


LINKS = {
    "the node’s signature is missing": {"s": ""},
    "checksum": {"w": WALLET.replace("C8", "c8")},
    "It was to be signed earlier": {},
    "This claim is for another gateway": {"g": "https://far.example"},
    "This claim is for another chain": {"c": "56"},
}


def claim_page(visitor: Visitor, **changes: str) -> Page:
    """The page of a link with some fields of another kind."""
    fields = {"n": NODE, "w": WALLET, "g": visitor.url, "c": "31337", "t": "1772366400000", "d": "1772368200", "s": "x"}
    return visitor.open("/claim#" + "&".join(f"{name}={value}" for name, value in (fields | changes).items() if value))


def test_a_link_that_cannot_be_signed_says_why(enter: Enter) -> None:
    visitor = enter()
    for words, changes in LINKS.items():
        claim_page(visitor, **changes)
        visitor.see(words)
        assert visitor.axe() == []


def test_a_claim_is_signed_by_the_wallet_that_it_names_alone(enter: Enter, newcomer: str) -> None:
    visitor = enter(newcomer)
    page = claim_page(visitor)
    visitor.connect()
    visitor.see("This claim is for another wallet")
    expect(page.get_by_role("button", name="Sign the claim")).to_be_disabled()


def test_what_fits_is_told_for_the_machine_that_one_has(enter: Enter) -> None:
    visitor = enter(size=PHONE)
    page = visitor.open("/gpu/distributed")
    page.get_by_label("Address that is paid").fill(WALLET.replace("C8", "c8"))
    visitor.see("Its checksum (EIP-55) is wrong")
    page.get_by_label("Address that is paid").fill(WALLET)
    page.get_by_label("Memory of the GPU, in GiB").fill("3")
    visitor.see("no block fits")
    visitor.see("Not one block of this model fits")
    page.get_by_label("Memory of the GPU, in GiB").fill("12")
    visitor.see("all blocks fit")
    page.get_by_role("radio", name=re.compile("through a relay")).check()
    expect(page.get_by_label("the command that starts the node", exact=True)).to_contain_text("--relay")
    assert visitor.axe() == []
    assert not visitor.scrolls_sideways()
