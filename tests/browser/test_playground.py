"""The playground: to the first answer, watched as it comes, stopped, verified, and through the loss of a node."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Enter
from tests.browser.stage import FAR, SPANS, STORY, Stage
from tests.browser.visitor import Visitor

RABBIT = "Once upon a time, there was a brave rabbit named"
END = "The end."

_NOTE_LENGTHS = """
(article) => {
  window.lengths = [];
  new MutationObserver(() => window.lengths.push(article.innerText.length))
    .observe(article, { childList: true, characterData: true, subtree: true });
}
"""


def write(page: Page, text: str) -> Locator:
    """Send it; gives the article of question and answer."""
    box = page.get_by_role("textbox", name="Message")
    page.get_by_role("spinbutton", name="Temperature").fill("0")  # always the same answer
    box.fill(text)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    box.press("Enter")
    article = page.get_by_role("article").last
    expect(article.get_by_role("heading", name=re.compile("^Question"))).to_be_attached()
    return article


def answered(article: Locator) -> None:
    """Wait for what stands below an answer that is over."""
    expect(article.get_by_text("Who ran it, and what proves it")).to_be_visible()


def payer(stage: Stage, key: str) -> str:
    stage.deposit(key, 10 * FAR)
    return key


@pytest.fixture
def guest(enter: Enter, stage: Stage, newcomer: str) -> Visitor:
    """Signed in with a wallet that has paid in, in the playground."""
    visitor = enter(payer(stage, newcomer))
    visitor.open("/playground")
    visitor.connect()
    return visitor


def test_the_link_of_the_demo_opens_a_playground_that_answers(enter: Enter, stage: Stage, newcomer: str) -> None:
    visitor = enter()
    page = visitor.open(f"/playground#session={stage.token_of(payer(stage, newcomer))}")
    assert "#" not in page.url, "the token does not stay where it could be copied by accident"
    article = write(page, "What is the capital of Japan?")
    visitor.see("The capital of Japan is Tokyo.", article)
    answered(article)
    page.reload()
    visitor.see("The capital of Japan is Tokyo.")
    expect(page.get_by_role("textbox", name="Message")).to_be_visible()


def test_an_answer_is_watched_as_it_comes_and_its_receipts_are_verified_here(guest: Visitor, tmp_path: Path) -> None:
    page = guest.page
    article = write(page, STORY)
    article.evaluate(_NOTE_LENGTHS)
    guest.see(RABBIT, article)
    answered(article)
    guest.see(re.compile(re.escape(END)), article)
    lengths = page.evaluate("window.lengths")
    assert len(set(lengths)) > 5, "the text grows as it is written"
    article.get_by_text("Who ran it, and what proves it").click()
    expect(article.get_by_role("table", name="The nodes that ran this answer").get_by_role("row")).to_have_count(3)
    article.get_by_role("button", name="Verify here").click()
    guest.see("All checks passed.", article)
    with page.expect_download() as download:
        article.get_by_role("button", name="Download the receipts").click()
    file = tmp_path / "receipts.json"
    download.value.save_as(file)
    assert len(json.loads(file.read_text())) > 0
    guest.picture("playground-answer-light-desktop")
    assert guest.axe() == []


def test_an_answer_that_is_stopped_stays_as_it_is_and_goes_no_further(guest: Visitor) -> None:
    page = guest.page
    article = write(page, STORY)
    guest.see(RABBIT[:15], article)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    answered(article)
    expect(article).not_to_contain_text(END)
    expect(article).to_contain_text("You stopped it")


def test_a_wallet_that_says_no_is_asked_again_when_its_owner_wants(enter: Enter, stage: Stage, newcomer: str) -> None:
    visitor = enter(payer(stage, newcomer))
    assert visitor.wallet is not None
    visitor.wallet.rejects = ["wallet_requestPermissions", "personal_sign"]
    page = visitor.open("/playground")
    page.get_by_role("banner").get_by_role("button", name="Connect wallet").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Test wallet").click()
    visitor.see("You said no in your wallet.", dialog)
    dialog.get_by_role("button", name="Test wallet").click()
    dialog.get_by_role("button", name="Sign in").click()
    visitor.see("You said no in your wallet.", dialog)
    dialog.get_by_role("button", name="Sign in").click()
    visitor.see("Signed in.", dialog)


def test_an_answer_goes_on_when_a_node_is_killed_and_the_map_shows_the_loss(
    guest: Visitor, enter: Enter, stage: Stage
) -> None:
    onlooker = enter()
    onlooker.open("/")
    onlooker.see("All 8 blocks are served; 4 of them hang on one node alone.")
    before = {node.name: stage.sessions(node) for node in stage.nodes[1:]}  # others may linger
    try:
        with stage.held() as go_on:
            article = write(guest.page, STORY)
            guest.see("Once upon", article)
            stage.lose(max(stage.nodes[1:], key=lambda node: stage.sessions(node) - before[node.name]))
            go_on()
            guest.see("A node of far-demo went away while this was written.", article)
            guest.picture("playground-after-a-loss-light-desktop")
        onlooker.see("All 8 blocks are served, each by one node.")
        onlooker.picture("home-after-a-loss-light-desktop")
        guest.see(re.compile(re.escape(END)), article)
        answered(article)
        guest.see(re.compile("the answer went on with another one"), article)
        article.get_by_text("Who ran it, and what proves it").click()
        article.get_by_role("button", name="Verify here").click()
        guest.see("All checks passed.", article)
    finally:
        stage.replace(SPANS[-1])
    onlooker.see("All 8 blocks are served; 4 of them hang on one node alone.")
