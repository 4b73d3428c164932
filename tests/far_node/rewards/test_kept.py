"""Receipts that a node keeps."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from discovery.protocol.errors import InvalidArgument
from discovery.protocol.messages import Close, ReceiptIssued, Step
from discovery.protocol.receipt import SignedReceipt, read_receipt, sign_receipt
from far_node.rewards.kept import ReceiptShelf, read_kept
from tests.support.documents import key_of, receipt
from tests.support.door import opened
from tests.support.ring import Ring, RingNode, a_ring


def signed(number: int, issued_at: int) -> SignedReceipt:
    return sign_receipt(receipt(session_id=f"{number:032x}", issued_at=issued_at), key_of("node"))


def test_what_is_kept_is_read_again_month_by_month(tmp_path: Path) -> None:
    shelf = ReceiptShelf(tmp_path / "receipts")
    kept = [signed(1, 1_767_225_599), signed(2, 1_767_225_600), signed(3, 1_767_225_601)]
    for one in (kept[1], kept[0], kept[2]):
        shelf.keep(one)
    assert read_kept(tmp_path / "receipts") == kept
    files = sorted((tmp_path / "receipts").iterdir())
    assert [file.name for file in files] == ["receipts-2025-12.jsonl", "receipts-2026-01.jsonl"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_line_that_was_not_written_whole_is_passed_over(tmp_path: Path) -> None:
    shelf = ReceiptShelf(tmp_path)
    shelf.keep(signed(1, 1_767_225_600))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes() + file.read_bytes()[:100] + b"\n")
    shelf.keep(signed(2, 1_767_225_600))
    assert [one.receipt.session_id[-1] for one in read_kept(tmp_path)] == ["1", "2"]


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match="cannot keep receipts in"):
        ReceiptShelf(tmp_path / "file")
    with pytest.raises(InvalidArgument, match="there is no directory"):
        read_kept(tmp_path / "nothing")


def test_that_it_cannot_be_kept_is_nobodys_harm(tmp_path: Path) -> None:
    shelf = ReceiptShelf(tmp_path)
    (tmp_path / "receipts-2026-01.jsonl").mkdir()
    shelf.keep(signed(1, 1_767_225_600))


async def test_a_node_keeps_the_last_receipt_of_each_session_with_work(tiny: Path) -> None:
    kept: list[SignedReceipt] = []
    async with a_ring(tiny) as ring:
        node = await ring.add(0, 3, keep=kept.append)
        last = await done(ring, node, 5)
        idle = await opened(ring, node)
        await idle.send(Close())
        await idle.expect(ReceiptIssued)
        await idle.close()
        gone = await opened(ring, node)
        await gone.send(Step(0, 0, ring.random_hidden(4)))
        await gone.expect(Step)
        await gone.close()  # without a word
        await node.until_free()
    assert [one.receipt.token_layers for one in kept] == [15, 12]
    assert kept[0].receipt.model_copy(update={"issued_at": 0}) == last.receipt.model_copy(update={"issued_at": 0})


async def done(ring: Ring, node: RingNode, positions: int) -> SignedReceipt:
    channel = await opened(ring, node)
    await channel.send(Step(0, 0, ring.random_hidden(positions)))
    await channel.expect(Step)
    await channel.send(Close())
    issued = await channel.expect(ReceiptIssued)
    await channel.close()
    return read_receipt(issued.document)
