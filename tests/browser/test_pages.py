"""Every page: nothing axe objects to, nothing that does not fit, light and dark, on a desk and in a hand."""

from __future__ import annotations

import gzip
import re

import pytest
from playwright.sync_api import expect

from far_mesh.marketplace.dashboard.site import PACKAGED, Site, path_of
from tests.browser.conftest import Enter
from tests.browser.stage import Stage
from tests.browser.visitor import DESKTOP, PHONE, Theme, Visitor


def built() -> dict[str, str]:
    """Every page of the site, by a name for its pictures, and one that there is not."""
    names = (file.relative_to(PACKAGED).as_posix() for file in sorted(PACKAGED.rglob("*.html")))
    paths = ["/" + path_of(name) for name in names if not name.startswith(("_", "404"))]
    return {path.strip("/").replace("/", "-") or "home": path for path in paths} | {"not-found": "/nowhere"}


PAGES = built()
SIZES = {"desktop": DESKTOP, "phone": PHONE}
FIRST_PAGE_BYTES = 350_000
"""Of JavaScript, compressed."""


def faults_of(visitor: Visitor, name: str) -> list[str]:
    """What is wrong with a page as it is now."""
    found = visitor.axe()
    found += visitor.page.get_by_text("could not be loaded").all_inner_texts()
    if visitor.scrolls_sideways():
        found.append("is wider than the screen")
    return [f"{name}: {fault}" for fault in found]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_is_for_everybody(enter: Enter, stage: Stage, theme: Theme, size: str) -> None:
    visitor = enter(stage.resident(), theme=theme, size=SIZES[size])
    visitor.open("/")
    visitor.connect()
    found = []
    for name, path in PAGES.items():
        visitor.open(path)
        visitor.picture(f"{name}-{theme}-{size}")
        found += faults_of(visitor, name)
    assert found == []


@pytest.mark.parametrize(("theme", "size"), [("light", "phone"), ("dark", "desktop")])
def test_who_has_no_wallet_is_told_what_to_do_on_every_page(enter: Enter, theme: Theme, size: str) -> None:
    visitor = enter(theme=theme, size=SIZES[size])
    found = []
    for name, path in PAGES.items():
        visitor.open(path)
        visitor.picture(f"{name}-no-wallet-{theme}-{size}")
        found += faults_of(visitor, name)
    visitor.page.get_by_role("banner").get_by_role("button", name="Connect wallet").click()
    visitor.see("No wallet was found in this browser")
    found += faults_of(visitor, "the dialog of wallets")
    assert found == []


def test_pages_have_titles_of_their_own(enter: Enter) -> None:
    visitor = enter()
    titles = []
    for path in PAGES.values():
        visitor.open(path)
        titles.append(visitor.page.title())
    assert len(set(titles)) == len(PAGES)
    assert all("Far Mesh" in title for title in titles)


def test_the_keyboard_reaches_everything_at_the_top_of_a_page(enter: Enter) -> None:
    page = enter().open("/")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('#main').contains(document.activeElement)")


def test_a_chosen_theme_is_there_before_anything_is_drawn(enter: Enter) -> None:
    visitor = enter(theme="dark")
    page = visitor.open("/")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.evaluate("localStorage.setItem('far-theme', 'light')")
    page.reload(wait_until="commit")
    page.wait_for_selector("body", state="attached")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_whichever_page_is_the_first_is_small(site: Site) -> None:
    for path in PAGES.values():
        page = site.files.get(path, site.files["/404"]).content.decode()
        scripts = set(re.findall(r'<script[^>]* src="([^"]+\.js)"', page))
        assert scripts
        size = sum(len(gzip.compress(site.files[script].content)) for script in scripts)
        assert size <= FIRST_PAGE_BYTES, f"{size} bytes of JavaScript on {path}"
