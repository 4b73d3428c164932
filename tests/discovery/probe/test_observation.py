"""Reports, and what is no report."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from discovery.probe.observation import (
    DOMAIN,
    FRESH_SECONDS,
    MAX_OBSERVATIONS,
    OLDEST,
    Report,
    ReportInvalid,
    read_report,
    sign_report,
)
from discovery.protocol.announcement import DOMAIN as ANNOUNCEMENT_DOMAIN
from discovery.protocol.signed import MAX_DOCUMENT_BYTES
from tests.discovery.probe.test_history import AT, seen, unreached
from tests.support.documents import key_of, peer_of, signed_json, tampered


def report(prober: str = "prober", **changes: Any) -> Report:
    fields: dict[str, Any] = {
        "peer_id": peer_of(prober),
        "swarm": "far",
        "sequence": 1,
        "issued_at": AT,
        "observations": (seen(), unreached()),
    }
    return Report(**(fields | changes))


def test_what_was_signed_is_read_again() -> None:
    signed = sign_report(report(), key_of("prober"))
    again = read_report(signed.document.to_bytes())
    assert again == signed
    assert again.document.signer == peer_of("prober")


def test_the_longest_report_is_no_longer_than_a_document() -> None:
    long: dict[str, Any] = {
        "reason": "x" * 64,
        "error": 123456.123456789012,
        "by": "majority",
        "round_trip_ms": 99999.123456789012,
    }
    times: dict[str, Any] = {
        "block_ms": 12345.678901234567,
        "claimed_block_ms": 12345.678901234567,
        "token_layers": 2**20,
    }
    observations = tuple(seen(verdict="undecided", **long, **times) for _ in range(MAX_OBSERVATIONS))
    signed = sign_report(report(observations=observations, swarm="s" * 64, sequence=2**53), key_of("prober"))
    assert len(signed.document.to_bytes()) <= MAX_DOCUMENT_BYTES
    assert read_report(signed.document.to_bytes()) == signed
    with pytest.raises(ValidationError):
        report(observations=(*observations, seen()))


def test_it_is_fresh_for_five_minutes() -> None:
    assert report().is_fresh(AT + FRESH_SECONDS)
    assert not report().is_fresh(AT + FRESH_SECONDS + 1)
    assert not report().is_fresh(AT - FRESH_SECONDS - 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("observations", []),
        ("observations", "none"),
        ("sequence", 0),
        ("sequence", 1.5),
        ("issued_at", -1),
        ("issued_at", AT + int(OLDEST) + 10),
        ("issued_at", AT - int(FRESH_SECONDS) - 10),
        ("swarm", "s" * 300),
        ("version", 2),
        ("peer_id", peer_of("somebody else")),
    ],
)
def test_what_is_no_report_is_refused(name: str, value: Any) -> None:
    body = report().model_dump(mode="json") | {name: value}
    with pytest.raises(ReportInvalid):
        read_report(signed_json("prober", body, DOMAIN))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("peer_id", "somebody"),
        ("peer_id", "12D3KooW" + "1" * 44),
        ("model_digest", "abc"),
        ("at", -1),
        ("reach", "teleport"),
        ("reach", "none"),
        ("fate", "done"),
        ("fate", "failed"),
        ("verdict", None),
        ("verdict", "maybe"),
        ("by", "rumour"),
        ("reason", "x" * 65),
        ("reason", "<script>"),
        ("round_trip_ms", -1.0),
        ("round_trip_ms", "nan"),
        ("block_ms", 0.0),
        ("token_layers", -1),
        ("token_layers", 2**40),
        ("error", 1e9),
        ("receipt", "yes"),
    ],
)
def test_what_is_no_observation_is_refused(name: str, value: Any) -> None:
    body = report().model_dump(mode="json")
    body["observations"][0][name] = value
    with pytest.raises(ReportInvalid):
        read_report(signed_json("prober", body, DOMAIN))


def test_what_was_changed_or_signed_for_something_else_is_refused() -> None:
    signed = sign_report(report(), key_of("prober"))
    with pytest.raises(ReportInvalid, match="signature"):
        read_report(tampered(signed.document, "right", "wrong"))
    with pytest.raises(ReportInvalid, match="signature"):
        read_report(signed_json("prober", report().model_dump(mode="json"), ANNOUNCEMENT_DOMAIN))
    for rubbish in (b"", b"{}", b"[]", b"\xff", b"[" * 9000, b"x" * (MAX_DOCUMENT_BYTES + 1)):
        with pytest.raises(ReportInvalid):
            read_report(rubbish)
