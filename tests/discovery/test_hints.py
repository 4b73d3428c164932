"""A discovery service is asked for peers, and believed no further."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from discovery.hints import MAX_ANSWER_BYTES, MAX_PEERS, bootstrap_peers, peers_to_join
from discovery.protocol.errors import InvalidArgument, PeerUnavailable
from tests.support.documents import peer_of

PEER = f"/ip4/198.51.100.4/tcp/31337/p2p/{peer_of('bootstrap')}"


class Service(ThreadingHTTPServer):
    """Answers what it is told to."""

    answer: tuple[int, bytes] = (200, b"")
    asked = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        status, body = self.server.answer
        self.server.asked = self.path
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    with Service(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def peers(*named: object) -> tuple[int, bytes]:
    return 200, json.dumps({"initial_peers": named}).encode()


async def test_peers_are_taken_and_what_is_none_is_left_out(service: Service) -> None:
    service.answer = peers("nonsense", 5, "/ip4/198.51.100.4/tcp/31337", PEER, None)
    assert await bootstrap_peers(service.url + "/") == (PEER,)
    assert service.asked == "/bootstrap"
    service.answer = peers(*[PEER] * 50)
    assert len(await bootstrap_peers(service.url)) == MAX_PEERS


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, b""), "status 404"),
        ((302, b""), "status 302"),
        ((200, b"<html>"), "names no peer"),
        ((200, b"[" * 10_000), "names no peer"),
        ((200, b"[1]"), "names no peer"),
        ((200, b'{"initial_peers": {"a": 1}}'), "names no peer"),
        ((200, b'{"initial_peers": []}'), "names no peer"),
        ((200, b" " * (MAX_ANSWER_BYTES + 1)), "says more than was asked for"),
    ],
    ids=["absent", "elsewhere", "page", "deep", "list", "object", "nobody", "long"],
)
async def test_what_is_no_answer_is_said(service: Service, answer: tuple[int, bytes], words: str) -> None:
    service.answer = answer
    with pytest.raises(PeerUnavailable, match=words):
        await bootstrap_peers(service.url)


async def test_a_service_that_is_away_is_named() -> None:
    with pytest.raises(PeerUnavailable, match=r"http://127\.0\.0\.1:9 does not answer"):
        await bootstrap_peers("http://127.0.0.1:9")


async def test_who_is_named_comes_after_who_is_known(service: Service) -> None:
    known = PEER.replace("31337", "31330")
    service.answer = peers(PEER, known)
    assert await peers_to_join((known,), service.url) == (known, PEER)
    assert await peers_to_join((), service.url) == (PEER, known)
    assert await peers_to_join((known,), None) == (known,)


async def test_a_service_that_is_away_keeps_out_only_who_knows_nobody() -> None:
    assert await peers_to_join((PEER,), "http://127.0.0.1:9") == (PEER,)
    with pytest.raises(PeerUnavailable, match="does not answer"):
        await peers_to_join((), "http://127.0.0.1:9")


async def test_an_address_that_means_nothing_is_refused_whoever_is_known() -> None:
    with pytest.raises(InvalidArgument, match="--discovery"):
        await peers_to_join((PEER,), "ftp://far.example")
