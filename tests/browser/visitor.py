"""Somebody with a browser, and what a page may not do while they look at it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request, expect

from tests.browser.wallet import NAME, Wallet

Theme = Literal["light", "dark"]

DESKTOP, PHONE = (1280, 900), (360, 740)
PATIENCE_MS = 120_000
"""A busy machine is slow; nothing is asserted about how fast anything is."""

expect.set_options(timeout=PATIENCE_MS)

_ROOT = Path(__file__).parents[2]
AXE = _ROOT / "node_modules" / "axe-core" / "axe.min.js"
PICTURES = Path(os.environ.get("FAR_SCREENSHOTS") or _ROOT / ".far" / "screenshots")
"""Where the last ones lie."""
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")

_VIOLATIONS = "__farViolation"
_WATCH = f"""
addEventListener("securitypolicyviolation", (event) =>
  window.{_VIOLATIONS}(`${{event.violatedDirective}} forbids ${{event.blockedURI}}`));
"""
_EXPECTED = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")
"""An interface that says no is part of what is tested. Chromium notes it."""


class Visitor:
    """A browser of their own, perhaps with a wallet, and a note of everything a page must not do."""

    def __init__(
        self, browser: Browser, url: str, wallet: Wallet | None, theme: Theme, size: tuple[int, int] = DESKTOP
    ) -> None:
        self.url, self.wallet = url, wallet
        self.misdeeds: list[str] = []
        self._is_known = False
        self.context: BrowserContext = browser.new_context(
            base_url=url,
            color_scheme=theme,
            viewport={"width": size[0], "height": size[1]},
            locale="en-GB",
            timezone_id="UTC",
            reduced_motion="reduce",
            permissions=["clipboard-read", "clipboard-write"],
        )
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.expose_binding(_VIOLATIONS, lambda _source, what: self.misdeeds.append(f"policy: {what}"))
        self.context.add_init_script(_WATCH)
        if wallet is not None:
            wallet.install(self.context)
        self.context.on("request", self._check_host)
        self.context.on("weberror", lambda error: self.misdeeds.append(f"uncaught: {error.error}"))
        self.context.on("console", self._check_console)
        self.page: Page = self.context.new_page()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def _check_host(self, request: Request) -> None:
        asked = urlsplit(request.url)
        if asked.scheme not in ("data", "blob") and asked.netloc != urlsplit(self.url).netloc:
            self.misdeeds.append(f"foreign host: {request.url}")

    def _check_console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not _EXPECTED.match(message.text):
            self.misdeeds.append(f"console: {message.text}")

    # ---- what they do

    def open(self, path: str) -> Page:
        """Go to a page and wait until nothing on it is on its way any more."""
        self.page.goto(path)
        expect(self.page.get_by_role("heading", level=1)).to_be_visible()
        if self._is_known and self.wallet is not None:
            expect(self.page.get_by_role("banner").get_by_title(self.wallet.address)).to_be_visible()
            expect(self.page.get_by_role("main").get_by_role("button", name="Sign in", exact=True)).to_have_count(0)
        self.settle()
        return self.page

    def settle(self) -> None:
        """Until there is no skeleton."""
        expect(self.page.locator("[aria-hidden=true].animate-pulse")).to_have_count(0)

    def connect(self) -> None:
        """Connect the wallet and sign in, by the button at the top."""
        self.page.get_by_role("banner").get_by_role("button", name="Connect wallet").click()
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_role("button", name=NAME).click()
        dialog.get_by_role("button", name="Sign in").click()
        expect(dialog.get_by_text("Signed in.")).to_be_visible(timeout=PATIENCE_MS)
        self.page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        self._is_known = True

    def see(self, words: str | re.Pattern[str], within: Locator | None = None) -> Locator:
        """Wait until it stands there."""
        found = (within or self.page.locator("body")).get_by_text(words).first
        expect(found).to_be_visible(timeout=PATIENCE_MS)
        return found

    # ---- what is found out about a page

    def axe(self) -> list[str]:
        """Violations that axe finds in the page as it is now: the rule, and where."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE.read_text())  # by the debugger: no policy of the page forbids it
        found: Sequence[dict[str, Any]] = self.page.evaluate(
            "(tags) => axe.run(document, {runOnly: tags, resultTypes: ['violations']}).then((said) => said.violations)",
            list(RULES),
        )
        return [f"{one['id']}: {one['help']}: {node['html'][:200]}" for one in found for node in one["nodes"]]

    def scrolls_sideways(self) -> bool:
        """Whether the page is wider than the screen."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    def text(self) -> str:
        """What stands on the page."""
        return str(self.page.evaluate("document.body.innerText"))

    def picture(self, name: str) -> None:
        """A screenshot of the page on a screen that is as high as all of it: what sticks to an edge covers nothing."""
        size = self.page.viewport_size
        assert size is not None
        height = int(self.page.evaluate("document.documentElement.scrollHeight"))
        self.page.set_viewport_size({"width": size["width"], "height": max(size["height"], height)})
        self.page.screenshot(path=PICTURES / f"{name}.png")
        self.page.set_viewport_size(size)
