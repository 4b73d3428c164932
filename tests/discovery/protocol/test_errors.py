"""One family of errors, one code for each, the same on both sides of a wire."""

from __future__ import annotations

import pytest

import far_mesh.errors
import far_node.errors
from discovery.protocol.errors import FarError, PeerUnavailable, RemoteError, error_from_wire
from discovery.protocol.messages import Failure, decode, encode

ROOMS = (far_node.errors, far_mesh.errors)


def family(kind: type[FarError] = FarError) -> list[type[FarError]]:
    return [kind, *(member for child in kind.__subclasses__() for member in family(child))]


def test_two_errors_cannot_claim_one_code() -> None:
    with pytest.raises(TypeError, match="already taken by PeerUnavailable"):
        type("Impostor", (FarError,), {"code": PeerUnavailable.code})


@pytest.mark.parametrize("kind", family(), ids=lambda kind: kind.__name__)
def test_every_error_says_what_it_means_over_http_and_whether_to_retry(kind: type[FarError]) -> None:
    assert 400 <= kind.status < 600
    assert isinstance(kind.retry, bool)
    assert kind.code.replace("_", "").isalpha()
    assert kind.code.islower()
    assert (kind.__doc__ or "").strip()


@pytest.mark.parametrize("kind", family(), ids=lambda kind: kind.__name__)
def test_an_error_that_crosses_the_wire_is_the_same_on_the_other_side(kind: type[FarError]) -> None:
    sent = kind("something failed", retry_after=2.5)
    message = decode(encode(Failure.of(sent, peer_id="someone")))
    assert isinstance(message, Failure)
    assert (message.code, message.message, message.retry) == (kind.code, "something failed", kind.retry)
    assert message.peer_id == "someone"
    received = message.to_error()
    if "code" in kind.__dict__:  # the base has no code of its own on the wire
        assert type(received) is FarError._by_code[kind.code] if kind is not FarError else RemoteError
    assert received.retry_after == 2.5


def test_a_code_from_the_future_is_a_remote_error_that_is_not_retried() -> None:
    error = error_from_wire("quantum_flip", "a bit flipped", 1.0)
    assert isinstance(error, RemoteError)
    assert not error.retry
    assert error.facts == {"remote_code": "quantum_flip", "retry_after": 1.0}
    assert "quantum_flip" in error.message


def test_an_error_without_a_time_to_wait_says_so() -> None:
    assert FarError("no").retry_after is None
    assert PeerUnavailable("gone", retry_after=3).retry_after == 3.0
