"""What the SDKs are tested with is what the marketplace signs and takes today."""

from __future__ import annotations

import pytest

from discovery.protocol.errors import ReceiptInvalid
from discovery.protocol.receipt import read_receipt
from tests.support.sdk_fixtures import PATH, receipts, written


def test_the_file_is_what_is_signed_today() -> None:
    assert PATH.read_text() == written(), "run python -m tests.support.sdk_fixtures"


@pytest.mark.parametrize(
    ("document", "is_right"), [pytest.param(document, is_right, id=name) for name, document, is_right in receipts()]
)
def test_receipts_are_taken_and_refused_as_the_file_says(document: str, is_right: bool) -> None:
    if is_right:
        read_receipt(document.encode())
    else:
        with pytest.raises(ReceiptInvalid):
            read_receipt(document.encode())
