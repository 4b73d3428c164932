"""One stage and one browser for all of these tests; a visitor for each, whose pages must have behaved."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from far_mesh.marketplace.dashboard.site import PACKAGED, Site
from tests.browser.program import find_chromium, options_of
from tests.browser.stage import FAR, Stage, new_key
from tests.browser.visitor import DESKTOP, Theme, Visitor
from tests.browser.wallet import Wallet
from tests.swarm.conftest import pytest_runtest_makereport

__all__ = ["pytest_runtest_makereport"]

Enter = Callable[..., Visitor]


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
    """New visitors, by the key of their wallet (none: without one)."""
    visitors: list[Visitor] = []

    def come(
        key: str | None = None, *, theme: Theme = "light", size: tuple[int, int] = DESKTOP, chain_id: int | None = None
    ) -> Visitor:
        wallet = None if key is None else Wallet(key, stage.chain.rpc_url)
        if wallet is not None and chain_id is not None:
            wallet.chain_id = chain_id
        visitors.append(Visitor(browser, stage.url, wallet, theme, size))
        return visitors[-1]

    yield come
    misdeeds = [misdeed for visitor in visitors for misdeed in visitor.misdeeds]
    for visitor in visitors:
        visitor.context.close()
    assert misdeeds == []


@pytest.fixture
def newcomer(stage: Stage) -> str:
    """The key of a wallet that has 100 FAR and has never been here."""
    key = new_key()
    stage.fund(key, 100 * FAR)
    return key
