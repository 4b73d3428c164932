"""What the document of the interface says is so: requests that keep to it and that break it, made by schemathesis."""

from __future__ import annotations

from pathlib import Path

from tests.discovery.service.doubles import Board, a_service
from tests.far_mesh.marketplace.fuzzing import DISCOVERY_MEANS_MORE, fuzz
from tests.support.documents import signed_announcement

SHARE = 16


def test_every_operation_does_what_the_document_says(tmp_path: Path) -> None:
    board = Board([signed_announcement("a"), signed_announcement("b", location=(52, 13), region="eu-west")])
    with a_service(tmp_path, board, requests_per_minute=0, writes_per_minute=0) as client:
        document = client.get("/openapi.json").json()
        found = fuzz(document, str(client.base_url), None, share=SHARE)
    assert not found.failures, str(found)
    assert DISCOVERY_MEANS_MORE.keys() <= found.requests.keys()
    assert len(found.requests) == sum(len(operations) for operations in document["paths"].values())
