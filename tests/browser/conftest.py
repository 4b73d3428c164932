"""One stage and one browser for all of these tests; a visitor for each, whose pages must have behaved."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

from far_mesh.marketplace.dashboard.site import PACKAGED, Site
from tests.browser.program import find_chromium, options_of
from tests.browser.stage import FAR, Stage, new_key
from tests.browser.visitor import DESKTOP, Theme, Visitor
from tests.browser.wallet import Wallet

HANGS = pytest.mark.timeout(900)
"""Longer than others: whichever test is the first starts six processes, and a busy machine starts each in a minute."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of this folder have all the time that what they wait for may take."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(HANGS)


class Enter:
    """New visitors, by the key of their wallet (none: without one)."""

    def __init__(self, browser: Browser, stage: Stage) -> None:
        self._browser, self._stage = browser, stage
        self.visitors: list[Visitor] = []

    def __call__(
        self,
        key: str | None = None,
        *,
        theme: Theme = "light",
        size: tuple[int, int] = DESKTOP,
        chain_id: int | None = None,
    ) -> Visitor:
        wallet = None if key is None else Wallet(key, self._stage.chain.rpc_url)
        if wallet is not None and chain_id is not None:
            wallet.chain_id = chain_id
        self.visitors.append(Visitor(self._browser, self._stage.url, wallet, theme, size))
        return self.visitors[-1]

    def leave(self) -> None:
        """All of them, whose pages must have done nothing that is forbidden."""
        for visitor in self.visitors:
            visitor.context.close()
        assert [misdeed for visitor in self.visitors for misdeed in visitor.misdeeds] == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what stood on its pages, and what the processes wrote."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        enter, stage = item.funcargs.get("enter"), item.funcargs.get("stage")
        if isinstance(enter, Enter):
            for number, visitor in enumerate(enter.visitors):
                with suppress(Error):  # it was closed, or has broken down
                    report.sections.append((f"what stood on {visitor.page.url}", visitor.text()))
                    visitor.picture(f"failed-{item.name}-{number}")
        if isinstance(stage, Stage):
            report.sections.append(("what the processes wrote", stage.town.story()))
    return report


def missing(what: str) -> Any:
    """Skip for want of something; where it must not be wanting (``FAR_BROWSER=required``), fail."""
    if os.environ.get("FAR_BROWSER") == "required":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="package")
def site() -> Site:
    """What ``npm run build`` has made."""
    return Site.read(PACKAGED) or missing("the dashboard is not built: make dashboard")


@pytest.fixture(scope="package")
def browser(site: Site) -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    program = find_chromium()
    if program is None:
        missing("there is no Chromium: apt-get install chromium, or set FAR_CHROMIUM to the program")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=options_of())
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def stage(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Nodes, a chain, a gateway. A test that breaks something puts it right."""
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture
def enter(browser: Browser, stage: Stage) -> Iterator[Enter]:
    """The door."""
    enter = Enter(browser, stage)
    yield enter
    enter.leave()


@pytest.fixture
def newcomer(stage: Stage) -> str:
    """The key of a wallet that has 100 FAR and has never been here."""
    key = new_key()
    stage.fund(key, 100 * FAR)
    return key
