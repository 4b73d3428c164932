"""Receipts that a node keeps for its owner: one signed document per line, a file for each month."""

from __future__ import annotations

import os
import time
from pathlib import Path

import structlog

from discovery.protocol.errors import InvalidArgument, ReceiptInvalid
from discovery.protocol.receipt import SignedReceipt, read_receipt

PATTERN = "receipts-*.jsonl"

log = structlog.get_logger(__name__)


class ReceiptShelf:
    """Keeps receipts in a directory. That it cannot is logged, and no session suffers for it."""

    def __init__(self, directory: Path) -> None:
        """Raises :class:`InvalidArgument` when nothing can be kept there."""
        self._directory = directory.expanduser()
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidArgument(f"cannot keep receipts in {directory}: {error.strerror}") from None
        if not os.access(self._directory, os.W_OK):
            raise InvalidArgument(f"cannot keep receipts in {directory}: it may not be written")

    def keep(self, signed: SignedReceipt) -> None:
        """Add what a node has signed last in a session."""
        file = self._directory / time.strftime("receipts-%Y-%m.jsonl", time.gmtime(signed.receipt.issued_at))
        try:
            with open(file, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as opened:
                opened.write(signed.to_bytes() + b"\n")
        except OSError as error:
            log.warning("receipt_not_kept", session=signed.receipt.session_id, why=error.strerror)


def read_kept(directory: Path) -> list[SignedReceipt]:
    """Every receipt that is kept in a directory, in the order in which they were signed. Lines that a lost power supply
    has left half written are passed over.

    Raises:
        InvalidArgument: there is no such directory.
    """
    if not directory.expanduser().is_dir():
        raise InvalidArgument(f"there is no directory {directory}")
    kept = []
    for file in sorted(directory.expanduser().glob(PATTERN)):
        for number, line in enumerate(file.read_bytes().splitlines(), 1):
            try:
                kept.append(read_receipt(line))
            except ReceiptInvalid as error:
                log.warning("receipt_unreadable", file=file.name, line=number, why=error.message)
    return kept
