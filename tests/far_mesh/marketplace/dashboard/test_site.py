"""A built site as it is served: paths, policies, caches, and nothing outside of it."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from far_mesh.marketplace.app import faces
from far_mesh.marketplace.dashboard.door import Dashboard
from far_mesh.marketplace.dashboard.site import PACKAGED, Site, path_of, policy_of

SCRIPT = "try{if(1<2&&'&amp;')x()}catch{}"
PAGE = f"<!doctype html><head><script>{SCRIPT}</script><script src='/_next/static/a.js'></script></head><p>here"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    for name, content in {
        "index.html": PAGE,
        "playground.html": "<p>" + "play " * 1000,
        "gpu/distributed.html": "<p>provide",
        "404.html": "<p>nothing",
        "_next/static/a.js": "let a = 1; " * 200,
        "dot.png": "png",
    }.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(content, encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    (site / "linked.txt").symlink_to(tmp_path / "secret.txt")
    (site / "linked").symlink_to(tmp_path, target_is_directory=True)
    return site


@pytest.fixture
def browser(folder: Path) -> Iterator[TestClient]:
    site = Site.read(folder)
    assert site is not None
    no_key = Route("/api/keys/1", lambda _: PlainTextResponse("no such key", 404))
    api = Starlette(routes=[Route("/health", lambda _: PlainTextResponse("alive")), no_key])
    with TestClient(Dashboard(api, site)) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "text"),
    [("/", "here"), ("/playground", "play"), ("/playground/", "play"), ("/gpu/distributed", "provide")],
)
def test_a_page_is_found_by_its_name(browser: TestClient, path: str, text: str) -> None:
    answer = browser.get(path)
    assert (answer.status_code, text in answer.text) == (200, True)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert browser.head(path).headers["etag"] == answer.headers["etag"]


def test_a_page_loads_nothing_from_elsewhere_and_runs_only_its_own_scripts(browser: TestClient) -> None:
    policy = browser.get("/").headers["content-security-policy"]
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http:" not in policy
    assert "unsafe-eval" not in policy
    assert policy_of("<p>no script").count("sha256") == 0


def test_what_has_its_content_in_its_name_is_kept_for_ever(browser: TestClient) -> None:
    answer = browser.get("/_next/static/a.js")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "javascript" in answer.headers["content-type"]


def test_what_a_browser_has_already_is_not_sent_again(browser: TestClient) -> None:
    tag = browser.get("/playground").headers["etag"]
    for sent in (tag, tag.removeprefix("W/"), f'"other", {tag}'):
        again = browser.get("/playground", headers={"if-none-match": sent})
        assert (again.status_code, again.content) == (304, b"")
        assert (again.headers["etag"], again.headers["vary"]) == (tag, "accept-encoding")
    assert browser.get("/playground", headers={"if-none-match": '"other"'}).status_code == 200


def test_text_is_packed_for_who_takes_that(browser: TestClient, folder: Path) -> None:
    with browser.stream("GET", "/playground", headers={"accept-encoding": "gzip"}) as packed:
        raw = b"".join(packed.iter_raw())
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw).decode() == (folder / "playground.html").read_text(encoding="utf-8")
    plain = browser.get("/playground", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%5csecret.txt",
        "/playground/../../secret.txt",
        "/linked.txt",
        "/linked/secret.txt",
        "/nothing",
        "/index.html",
        "/_next/static/",
        "/playground%00",
    ],
)
def test_nothing_else_is_given(browser: TestClient, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_of_a_part_the_whole_is_sent(browser: TestClient) -> None:
    part = browser.get("/playground", headers={"range": "bytes=0-3"})
    assert (part.status_code, len(part.content)) == (200, len(browser.get("/playground").content))
    assert "accept-ranges" not in part.headers


def test_the_interface_is_asked_for_the_rest(browser: TestClient) -> None:
    assert browser.get("/health").text == "alive"
    assert browser.post("/playground").status_code == 404


def test_at_an_address_that_is_none_a_browser_gets_a_page_and_a_client_the_answer(browser: TestClient) -> None:
    wants_pages = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8", "if-none-match": "*"}
    page = browser.get("/nothing", headers=wants_pages)
    assert (page.status_code, page.text) == (404, "<p>nothing")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "content-security-policy" in page.headers
    assert browser.get("/nothing").text == "Not Found"


def test_what_a_route_has_not_is_said_by_the_route(browser: TestClient) -> None:
    assert browser.get("/api/keys/1", headers={"accept": "text/html"}).text == "no such key"


def test_where_nothing_was_built_there_is_no_site(tmp_path: Path) -> None:
    assert Site.read(tmp_path) is None
    assert Site.read(tmp_path / "nowhere") is None


def test_no_page_takes_the_place_of_a_route() -> None:
    pages = Path(__file__).parents[4] / "frontend" / "src" / "app"
    names = {"/" + page.parent.relative_to(pages).as_posix() for page in pages.rglob("page.tsx")} - {"/."}
    assert {"/playground", "/gpu/distributed", "/provider/dashboard"} <= names
    routes = set(faces(None, has_escrow=True).openapi()["paths"])
    assert not names & routes
    assert path_of("index.html") == ""
    assert PACKAGED.name == "site"
