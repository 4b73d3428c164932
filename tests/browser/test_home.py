"""The first page: who is there, where, which blocks of a model they serve, and what it says when it knows nothing."""

from __future__ import annotations

import json
import re
import signal
from functools import partial
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Enter
from tests.browser.stage import MODEL, SPANS, Stage
from tests.browser.visitor import PATIENCE_MS, Visitor

MODELS, NODES = "**/api/inference/models", "**/api/nodes/active/**"
BLOCKS = SPANS[0][1] + SPANS[1][1] - SPANS[1][0]


def strip(page: Page) -> Any:
    """Which blocks of the model are served."""
    return page.get_by_role("img", name=f"Who serves the blocks of {MODEL}")


def world(page: Page) -> Any:
    """The map."""
    return page.get_by_role("img", name="Map of the world")


def says(name: str) -> dict[str, Any]:
    """What a picture is to be called, once the page has asked again."""
    return {"name": re.compile(re.escape(name)), "timeout": PATIENCE_MS}


def shown(page: Page, **changes: Any) -> None:
    """The model as the gateway has it, but for some things."""

    def answer(route: Route) -> None:
        body = route.fetch().json()
        body["models"][0] |= changes
        route.fulfill(json=body)

    page.route(MODELS, answer)


def test_a_node_that_comes_is_on_the_map_and_in_the_strip_and_one_that_goes_is_not(enter: Enter, stage: Stage) -> None:
    page = enter().open("/")
    count = len(SPANS)
    expect(world(page)).to_have_accessible_name(f"Map of the world. place unknown: {count} nodes.")
    expect(strip(page)).to_have_accessible_name(**says("blocks 0–3: 1 node; blocks 4–7: 2 nodes"))
    node = stage.start_node(SPANS[0], "--location", "52.5,13.4").wait_until_ready()
    try:
        expect(world(page)).to_have_accessible_name(**says(f"Europe: 1 node, place unknown: {count} nodes"))
        expect(strip(page)).to_have_accessible_name(**says("blocks 0–7: 2 nodes"))
        page.get_by_text(f"Nodes of {MODEL}").click()
        rows = page.get_by_role("table", name=f"Nodes that serve {MODEL}").get_by_role("row")
        expect(rows.filter(has_text="Europe")).to_have_count(1)
    finally:
        node.send(signal.SIGTERM)
        node.wait()
    expect(world(page)).to_have_accessible_name(**says(f"Map of the world. place unknown: {count} nodes."))
    expect(strip(page)).to_have_accessible_name(**says("blocks 0–3: 1 node; blocks 4–7: 2 nodes"))


def test_a_hole_is_told_to_everybody(enter: Enter) -> None:
    visitor = enter()
    stretches = [(0, 3, 1), (3, 4, 0), (4, BLOCKS, 2)]
    cover = [{"first_block": first, "end_block": end, "replicas": replicas} for first, end, replicas in stretches]
    shown(visitor.page, coverage=cover, available=False, reason="a hole")
    page = visitor.open("/")
    expect(strip(page)).to_have_accessible_name(**says("block 3: no node"))
    visitor.see("Nobody serves block 3 now.")
    visitor.see("Not available")
    expect(page.get_by_role("status").filter(has_text="Nobody serves block 3 now.")).to_have_count(1)
    assert visitor.axe() == []


def test_what_is_not_measured_is_not_made_up(enter: Enter) -> None:
    visitor = enter()
    shown(visitor.page, avg_latency_ms=None)
    visitor.open("/")
    visitor.see("not measured")


def fulfil(body: Any, route: Route) -> None:
    """Answer with this."""
    route.fulfill(json=body)


@pytest.mark.parametrize(
    ("models", "nodes", "words"),
    [
        ({"models": []}, None, "No model is on sale here"),
        (None, {"model_id": MODEL, "total_nodes": 0, "count": 0, "nodes": []}, "No node is announced now"),
    ],
)
def test_where_nothing_is_that_is_said(enter: Enter, models: Any, nodes: Any, words: str) -> None:
    visitor = enter()
    for path, body in ((MODELS, models), (NODES, nodes)):
        if body is not None:
            visitor.page.route(path, partial(fulfil, body))
    visitor.open("/")
    visitor.see(words)
    assert visitor.axe() == []


def refuse(route: Route) -> None:
    """An error that asking again does not mend."""
    error = {
        "message": "the models are being counted",
        "code": "refused",
        "type": "invalid_request_error",
        "param": None,
    }
    route.fulfill(status=403, content_type="application/json", body=json.dumps({"error": error}))


def test_who_gets_an_error_may_try_again(enter: Enter) -> None:
    visitor = enter()
    visitor.page.route(MODELS, refuse)
    page = visitor.open("/")
    visitor.see("The models are being counted.")
    assert visitor.axe() == []
    page.unroute(MODELS)
    page.get_by_role("button", name="Try again").click()
    expect(strip(page)).to_be_visible(timeout=PATIENCE_MS)


def test_without_a_network_what_was_there_stays_and_is_called_old(enter: Enter) -> None:
    visitor = enter()
    page = visitor.open("/")
    expect(strip(page)).to_be_visible()
    visitor.context.set_offline(True)
    visitor.see("This is not up to date")
    expect(strip(page)).to_be_visible()
    visitor.context.set_offline(False)
    expect(page.get_by_text("This is not up to date")).to_have_count(0, timeout=PATIENCE_MS)
    forget_lost_connections(visitor)


def forget_lost_connections(visitor: Visitor) -> None:
    """Which were to be lost."""
    visitor.misdeeds[:] = [misdeed for misdeed in visitor.misdeeds if "ERR_INTERNET_DISCONNECTED" not in misdeed]


def test_an_address_that_is_none_leads_back(enter: Enter, stage: Stage) -> None:
    visitor = enter()
    page = visitor.open("/no/such/page")
    visitor.see("There is no such page")
    page.get_by_role("link", name="To the network").click()
    expect(strip(page)).to_be_visible(timeout=PATIENCE_MS)
    assert httpx.get(f"{stage.url}/no/such/page", timeout=60).json()["error"]["code"] == "not_found"
